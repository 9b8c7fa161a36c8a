// A browser that signs in: the pages of an application over https, before a service whose API lies under the same host.
// Arguments: where the service is, the port to open, a key, its certificate, the browser, an address, a password.
const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");
const { chromium } = require("playwright-core");

const [service, port, key, cert, executablePath, email, password] = process.argv.slice(2);

const front = https.createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(cert) }, (request, response) => {
  if (!request.url.startsWith("/api/")) {
    response.writeHead(200, { "content-type": "text/html" });
    response.end("<!doctype html><title>Application</title>");
    return;
  }
  const { method, headers } = request;
  const passed = http.request(service + request.url, { method, headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  request.pipe(passed);
});

// Runs in the page.
async function visit({ email, password }) {
  const said = [];
  async function call(method, path, body) {
    const headers = { "Content-Type": "application/json", "X-Requested-With": "fetch" };
    const answer = await fetch(`/api/v1/${path}`, { method, headers, body: body && JSON.stringify(body) });
    const text = await answer.text();
    const found = text ? JSON.parse(text) : {};
    said.push(`${method} ${path} ${answer.status}${found.code ? ` ${found.code}` : ""}`);
    return found;
  }
  const get = async (options) =>
    (await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) })).toJSON();

  await call("POST", "public/auth/login", { email, password, cookies: true });
  await call("GET", "admin/users");
  const made = await call("POST", "app/auth/passkeys/options", { password });
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(made.options);
  const created = await navigator.credentials.create({ publicKey });
  await call("POST", "app/auth/passkeys", { token: made.token, passkey: created.toJSON(), name: "Browser" });
  await call("POST", "public/auth/refresh");
  await call("GET", "admin/users");
  await call("POST", "public/auth/logout");
  await call("GET", "app/users/me");

  const asked = await call("POST", "public/auth/login", { email, password, cookies: true });
  const beside = { token: asked.token, passkey: await get(asked.passkey_options), cookies: true };
  await call("POST", "public/auth/second-factor", beside);
  await call("GET", "admin/users");
  await call("POST", "public/auth/logout");

  const alone = await call("POST", "public/auth/passkey-options");
  await call("POST", "public/auth/passkey", { token: alone.token, passkey: await get(alone.options), cookies: true });
  await call("GET", "admin/users");
  return { said, readable: document.cookie };
}

async function main() {
  await new Promise((resolve) => front.listen(Number(port), "127.0.0.1", resolve));
  const args = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];
  const browser = await chromium.launch({ executablePath, args });
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  const devtools = await context.newCDPSession(page);
  await devtools.send("WebAuthn.enable");
  await devtools.send("WebAuthn.addVirtualAuthenticator", {
    options: {
      protocol: "ctap2",
      transport: "internal",
      hasResidentKey: true,
      hasUserVerification: true,
      isUserVerified: true,
      automaticPresenceSimulation: true,
    },
  });
  await page.goto(`https://localhost:${port}/`);
  const found = await page.evaluate(visit, { email, password });
  found.cookies = await context.cookies();
  await browser.close();
  front.close();
  console.log(JSON.stringify(found));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
