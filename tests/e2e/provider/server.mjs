// A real OpenID provider for the end-to-end tests, under `/oidc` on a free loopback port.
//
// It prints one line of JSON, `{"port": …, "issuer": …}`, when it is ready, and stops on SIGTERM or when its standard
// input closes. Settings come from the environment, see `settings` below; all have defaults but CLIENTS.

import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createAccounts } from './accounts.mjs';
import { createControls, endpointOf } from './controls.mjs';
import { handleInteraction } from './interactions.mjs';
import { createKey, createProvider } from './provider.mjs';
import { createStorage } from './storage.mjs';

const env = (name, fallback) => process.env[name] ?? fallback;

const settings = {
  clients: JSON.parse(env('CLIENTS', '[]')), // client metadata; `third_party: true` asks for consent on a page
  resources: JSON.parse(env('RESOURCES', '{}')), // resource indicator → its scopes, space-separated
  accessTokenTtl: Number(env('ACCESS_TOKEN_TTL', '3600')), // seconds, as are all of these
  idTokenTtl: Number(env('ID_TOKEN_TTL', '3600')),
  refreshTokenTtl: Number(env('REFRESH_TOKEN_TTL', String(14 * 24 * 3600))),
  reuseGrace: Number(env('REUSE_GRACE', '3')),
  rotate: env('ROTATE', 'logto'), // logto, always, never
  signingKey: env('SIGNING_KEY', 'EC'), // EC (ES384) or RSA (RS256, published without `alg`)
  bigClaimsBytes: Number(env('BIG_CLAIMS_BYTES', '3000')),
  tlsCert: env('TLS_CERT'),
  tlsKey: env('TLS_KEY'),
};

const accounts = createAccounts(settings);
const storage = createStorage(settings);
let keys = [createKey(settings.signingKey)];
let provider;
let engine;
let issuer;

function build() {
  provider = createProvider(issuer, { settings, keys, storage, accounts });
  controls.watch(provider);
  engine = provider.callback();
}

const controls = createControls({
  accounts,
  ageSessions: storage.ageSessions,
  // The new key signs at once and the one before stays published, two at most, as in Logto.
  rotateKeys() {
    keys = [createKey(settings.signingKey), keys[0]];
    build();
  },
});

async function handle(req, res) {
  const url = new URL(req.url, issuer);
  if (url.pathname.startsWith('/__test__/')) return controls.answer(res, url);
  if (controls.isDown()) return req.socket.destroy();
  if (url.pathname.startsWith('/interaction/')) return handleInteraction(provider, req, res, url, accounts);
  if (!url.pathname.startsWith('/oidc/')) return res.writeHead(404).end();
  const endpoint = endpointOf(url.pathname);
  controls.note(endpoint, url);
  if (await controls.before(res, endpoint)) return undefined;
  controls.after(res, endpoint);
  if (endpoint === 'jwks') res.setHeader('cache-control', 'no-cache, max-age=0, must-revalidate');
  req.originalUrl = req.url;
  req.url = req.url.slice('/oidc'.length);
  return engine(req, res);
}

function listener(req, res) {
  handle(req, res).catch((error) => {
    console.error(error);
    if (!res.headersSent) res.writeHead(500);
    res.end();
  });
}

const server = settings.tlsCert
  ? https.createServer({ cert: readFileSync(settings.tlsCert), key: readFileSync(settings.tlsKey) }, listener)
  : http.createServer(listener);

server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  issuer = `${settings.tlsCert ? 'https' : 'http'}://localhost:${port}/oidc`;
  build(); // the issuer depends on the port: listen first
  process.stdout.write(`${JSON.stringify({ port, issuer })}\n`);
});

function stop() {
  server.close(() => process.exit(0));
  server.closeAllConnections();
}

process.on('SIGTERM', stop);
process.stdin.on('end', stop).on('error', stop).resume();
