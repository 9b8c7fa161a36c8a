// A provider of OpenID Connect: `node provider.cjs RS256 4000` serves on that port with a new key, and prints its issuer.
// Its users are whoever the authorization request names in `login_hint`.
const { OAuth2Server } = require("oauth2-mock-server");

async function main([algorithm, port]) {
  const server = new OAuth2Server();
  await server.issuer.keys.generate(algorithm);
  const users = new Map();
  server.service.on("beforeAuthorizeRedirect", ({ url }, request) => {
    users.set(url.searchParams.get("code"), request.query.login_hint);
  });
  server.service.on("beforeTokenSigning", ({ payload }, request) => {
    const user = users.get(request.body.code);
    Object.assign(payload, { sub: user, name: user, email: `${user}@example.com`, email_verified: true });
    // What an access token is for; the identity token is for the client.
    payload.aud ??= request.body.resource;
  });
  await server.start(Number(port), "127.0.0.1");
  console.log(server.issuer.url);
}

main(process.argv.slice(2));
