// An instance of Clerk: `node clerk.cjs 4000 4001` serves on the first port and prints its issuer. The package "emulate" is
// its Backend API, and signs its session tokens; before it stands the Frontend API, which has the keys in another place.
// POST /send signs a body as Svix does, with the secret in its query, and returns the headers.
const http = require("node:http");
const path = require("node:path");
const { Webhook } = require("svix");

async function main([port, behind]) {
  const url = `http://localhost:${port}`;
  const { createEmulator } = await import(path.join(process.env.NODE_PATH, "emulate", "dist", "api.js"));
  const emulator = await createEmulator({
    service: "clerk",
    port: Number(behind),
    baseUrl: url,
    seed: { tokens: { sk_test_one: { login: "admin" } }, clerk: {} },
  });
  const front = http.createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    const body = Buffer.concat(parts);
    const asked = new URL(request.url, url);
    if (asked.pathname === "/send") {
      const [id, at] = [asked.searchParams.get("id"), new Date()];
      const signature = new Webhook(asked.searchParams.get("secret")).sign(id, at, body.toString());
      response.setHeader("Content-Type", "application/json");
      response.end(
        JSON.stringify({ "svix-id": id, "svix-timestamp": String(Math.floor(at / 1000)), "svix-signature": signature }),
      );
      return;
    }
    const place = asked.pathname === "/.well-known/jwks.json" ? "/v1/jwks" : request.url;
    const { authorization = "", "content-type": type = "application/json" } = request.headers;
    const answer = await fetch(`http://localhost:${behind}${place}`, {
      method: request.method,
      headers: { authorization, "content-type": type },
      body: ["GET", "HEAD"].includes(request.method) ? undefined : body,
    });
    response.writeHead(answer.status, { "Content-Type": answer.headers.get("content-type") ?? "text/plain" });
    response.end(Buffer.from(await answer.arrayBuffer()));
  });
  front.listen(Number(port), "127.0.0.1", () => console.log(emulator.url === url ? url : `not at ${emulator.url}`));
}

main(process.argv.slice(2));
