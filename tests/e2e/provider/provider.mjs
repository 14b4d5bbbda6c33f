// oidc-provider, configured to behave like Logto. It knows no sockets and no pages but those that it must return itself.

import { generateKeyPairSync } from 'node:crypto';
import { Provider, errors } from 'oidc-provider';
import { CLAIMS } from './accounts.mjs';
import { allowExchange } from './exchange.mjs';
import { ORGANIZATIONS, audienceOf, checkOrganization, organizationOf } from './organizations.mjs';
import { messagePage, signOutPage } from './pages.mjs';

const LOGTO_PARAMETERS = [
  'first_screen', 'identifier', 'direct_sign_in', 'interaction_mode', 'organization_id', 'one_time_token',
  'google_one_tap_credential',
];

const DAY = 24 * 3600;

/** Make a signing key, private JWK. EC P-384 as Logto's default; an RSA key is published without `alg`. */
export function createKey(kind) {
  const { privateKey } = kind === 'RSA'
    ? generateKeyPairSync('rsa', { modulusLength: 2048 })
    : generateKeyPairSync('ec', { namedCurve: 'P-384' });
  return privateKey.export({ format: 'jwk' });
}

/**
 * Confidential apps rotate past 70 % of the token's life, public ones every time. `always` and `never` override that.
 *
 * The engine asks this after it has looked at the token and before it spends it: where Logto looks at the organization.
 */
function rotation(rule) {
  return (ctx) => {
    const { RefreshToken, Client } = ctx.oidc.entities;
    checkOrganization(ctx);
    if (rule !== 'logto') return rule === 'always';
    return Client.clientAuthMethod === 'none' || RefreshToken.ttlPercentagePassed() >= 70;
  };
}

/** What an app may ask of a resource: a machine what its roles give, any other app what there is. */
function allowed(client, resources, indicator) {
  if (!client.grantTypes.includes('client_credentials')) return resources[indicator];
  return client.metadata().permissions?.[indicator] ?? '';
}

function resourceServer(resources, algorithm) {
  return async (ctx, indicator, client) => {
    if (!Object.hasOwn(resources, indicator)) throw new errors.InvalidTarget();
    return {
      scope: allowed(client, resources, indicator),
      audience: audienceOf(ctx, indicator),
      accessTokenFormat: 'jwt',
      jwt: { sign: { alg: algorithm } },
    };
  };
}

function lifetimes(settings) {
  return {
    AccessToken: settings.accessTokenTtl,
    AuthorizationCode: 60,
    IdToken: settings.idTokenTtl,
    RefreshToken: settings.refreshTokenTtl,
    Interaction: 3600,
    Session: 14 * DAY,
    Grant: 180 * DAY,
  };
}

/** Logto lets the pages of an app read the answers that it gets: those of its redirect URIs' origins. */
function isPageOfApp(_ctx, origin, client) {
  return client.clientAuthMethod === 'none' && client.redirectUris.some((uri) => new URL(uri).origin === origin);
}

function features(settings, algorithm) {
  return {
    devInteractions: { enabled: false },
    dPoP: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: resourceServer(settings.resources, algorithm),
      // An organization token travels as one for the reserved resource, which every such sign-in has asked for.
      useGrantedResource: async (ctx) => organizationOf(ctx) !== undefined,
      defaultResource: async (ctx, _client, asked) => {
        if (ctx.oidc.params.grant_type === 'client_credentials') throw new errors.InvalidTarget();
        return asked?.includes(ORGANIZATIONS) ? ORGANIZATIONS : asked;
      },
    },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: async (ctx, form) => { ctx.body = signOutPage(form); },
      postLogoutSuccessSource: async (ctx) => { ctx.body = messagePage('Signed out', 'You are signed out.'); },
    },
  };
}

/** Build the provider for an issuer. The first of `keys` signs, all are published. */
export function createProvider(issuer, { settings, keys, storage, accounts }) {
  const algorithm = keys[0].kty === 'RSA' ? 'RS256' : 'ES384';
  const provider = new Provider(issuer, {
    adapter: storage,
    jwks: { keys },
    clients: settings.clients,
    clientDefaults: {
      grant_types: ['authorization_code', 'refresh_token'],
      id_token_signed_response_alg: algorithm,
      response_types: ['code'],
      token_endpoint_auth_method: 'client_secret_basic',
    },
    extraClientMetadata: { properties: ['third_party', 'permissions'] },
    enabledJWA: {
      idTokenSigningAlgValues: [algorithm],
      userinfoSigningAlgValues: [algorithm],
      introspectionSigningAlgValues: [algorithm],
      authorizationSigningAlgValues: [algorithm],
    },
    claims: CLAIMS,
    clientBasedCORS: isPageOfApp,
    scopes: ['openid', 'offline_access', ...Object.keys(CLAIMS).filter((scope) => scope !== 'openid')],
    conformIdTokenClaims: false,
    clockTolerance: 0,
    cookies: { keys: ['test-only'] },
    extraParams: LOGTO_PARAMETERS,
    extraTokenClaims: async (ctx) => {
      const organization = organizationOf(ctx);
      return organization && ctx.oidc.params.resource ? { organization_id: organization } : undefined;
    },
    features: features(settings, algorithm),
    findAccount: accounts.find,
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    rotateRefreshToken: rotation(settings.rotate),
    ttl: lifetimes(settings),
    renderError: async (ctx, out) => {
      ctx.type = 'html';
      ctx.body = messagePage('Something is wrong with this request', `${out.error}: ${out.error_description ?? ''}`);
    },
  });
  allowExchange(provider, { keys, accounts, resourceServer: resourceServer(settings.resources, algorithm) });
  provider.on('server_error', (_ctx, error) => console.error(error));
  return provider;
}
