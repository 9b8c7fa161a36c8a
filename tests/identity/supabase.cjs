// The Auth API of a project of Supabase: `node supabase.cjs ES256 4000` serves on that port with a new key, and prints
// the project's address. oauth2-mock-server has the key and signs; the paths and the claims are Supabase's.
const http = require("node:http");
const { OAuth2Server } = require("oauth2-mock-server");

async function main([algorithm, port]) {
  const url = `http://localhost:${port}`;
  const server = new OAuth2Server();
  await server.issuer.keys.generate(algorithm);
  server.issuer.url = `${url}/auth/v1`;
  const front = http.createServer(async (request, response) => {
    const asked = new URL(request.url, url);
    response.setHeader("Content-Type", "application/json");
    if (asked.pathname === "/auth/v1/.well-known/jwks.json") {
      response.end(JSON.stringify({ keys: server.issuer.keys.toJSON() }));
    } else if (asked.pathname === "/auth/v1/token") {
      const { id, ...claims } = Object.fromEntries(asked.searchParams);
      const token = await server.issuer.buildToken({
        scopesOrTransform: (header, payload) => {
          Object.assign(header, { typ: "JWT" });
          Object.assign(payload, {
            sub: id,
            aud: "authenticated",
            role: "authenticated",
            aal: "aal1",
            amr: [{ method: "password", timestamp: payload.iat }],
            session_id: "6f1b1f0e-7a0c-4a57-9b5f-6a2f2d0e4c11",
            is_anonymous: false,
            app_metadata: { provider: "email" },
            user_metadata: {},
            ...claims,
          });
        },
      });
      response.end(JSON.stringify({ access_token: token }));
    } else {
      response.writeHead(404).end("{}");
    }
  });
  front.listen(Number(port), "127.0.0.1", () => console.log(url));
}

main(process.argv.slice(2));
