-- For the SQL editor of a Supabase project: tells the service of users who come, change and go. It may be run again.
-- Messages are signed as Standard Webhooks, and hold none of the passwords and tokens that auth.users has.
create extension if not exists pg_net;
create extension if not exists pgcrypto with schema extensions;

do $$
begin
    if exists (select from vault.secrets where name = 'service_webhook_secret') then
        perform vault.update_secret((select id from vault.secrets where name = 'service_webhook_secret'), '<secret>');
    else
        perform vault.create_secret('<secret>', 'service_webhook_secret');
    end if;
end
$$;

create schema if not exists private;
revoke all on schema private from public;

create or replace function private.describe_user(person auth.users) returns jsonb
language sql stable set search_path = '' as $$
    select jsonb_build_object(
        'id', person.id,
        'email', nullif(person.email, ''),
        'email_confirmed_at', person.email_confirmed_at,
        'raw_app_meta_data', person.raw_app_meta_data,
        'raw_user_meta_data', jsonb_build_object(
            -- Users write these. One that is too long for a name is not sent whole, or the service could not take it.
            'full_name', left(person.raw_user_meta_data ->> 'full_name', 201),
            'name', left(person.raw_user_meta_data ->> 'name', 201)
        ),
        'is_anonymous', person.is_anonymous,
        'is_banned', coalesce(person.banned_until > now(), false),
        'deleted_at', person.deleted_at
    )
$$;

create or replace function private.tell_service() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
    secret text;
    message_id text := 'msg_' || gen_random_uuid();
    sent_at text := floor(extract(epoch from clock_timestamp()))::bigint;
    body jsonb;
begin
    body := jsonb_build_object(
        'type', tg_op, 'schema', tg_table_schema, 'table', tg_table_name, 'occurred_at', clock_timestamp(),
        'record', case when tg_op <> 'DELETE' then private.describe_user(new) end,
        'old_record', case when tg_op <> 'INSERT' then private.describe_user(old) end
    );
    if tg_op = 'UPDATE' and body -> 'record' = body -> 'old_record' then
        return null;
    end if;
    select decrypted_secret into strict secret from vault.decrypted_secrets where name = 'service_webhook_secret';
    perform net.http_post(
        url := '<url>',
        body := body,
        headers := jsonb_build_object(
            'Content-Type', 'application/json',
            'webhook-id', message_id,
            'webhook-timestamp', sent_at,
            'webhook-signature', 'v1,' || encode(
                extensions.hmac(
                    convert_to(message_id || '.' || sent_at || '.' || body::text, 'UTF8'),
                    decode(substr(secret, length('whsec_') + 1), 'base64'),
                    'sha256'
                ),
                'base64'
            )
        ),
        timeout_milliseconds := 5000
    );
    return null;
exception when others then
    -- Whatever is wrong here, people can sign in.
    raise warning 'the service was not told of a change: %', sqlerrm;
    return null;
end
$$;
revoke all on function private.tell_service(), private.describe_user(auth.users) from public;

drop trigger if exists tell_service on auth.users;
create trigger tell_service after insert or update or delete on auth.users
for each row execute function private.tell_service();
