// Token exchange (RFC 8693): an API's access token for one of another API, in the name of the same user, as in Logto.
// It knows the engine's models and the published keys, and no page and no socket.

import { createPublicKey } from 'node:crypto';
import { jwtVerify } from 'jose';
import { errors } from 'oidc-provider';

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';

async function subjectOf({ issuer }, keys, { subject_token: token, subject_token_type: type }) {
  if (type !== ACCESS_TOKEN) throw new errors.InvalidGrant('unsupported subject token type');
  const tries = keys.map((key) => jwtVerify(
    token,
    createPublicKey({ key, format: 'jwk' }),
    { issuer, typ: 'at+jwt' },
  ));
  const { payload } = await Promise.any(tries).catch(() => { throw new errors.InvalidGrant('invalid subject token'); });
  return payload.sub;
}

/** Let the clients that name the grant type exchange access tokens. Its answer is an access token only. */
export function allowExchange(provider, { keys, accounts, resourceServer }) {
  async function exchange(ctx) {
    const { client, params, requestParamScopes } = ctx.oidc;
    const accountId = await subjectOf(provider, keys, params);
    if (!await accounts.find(ctx, accountId)) throw new errors.InvalidGrant('referenced account not found');
    const server = new provider.ResourceServer(params.resource, await resourceServer(ctx, params.resource, client));
    const grant = new provider.Grant({ accountId, clientId: client.clientId });
    const scope = [...requestParamScopes].filter((name) => server.scopes.has(name)).join(' ');
    if (scope) grant.addResourceScope(params.resource, scope);
    const token = new provider.AccessToken({ accountId, client, grantId: await grant.save(), gty: TOKEN_EXCHANGE });
    token.resourceServer = server;
    token.scope = scope || undefined;
    ctx.body = {
      access_token: await token.save(), expires_in: token.expiration, scope, token_type: token.tokenType,
    };
  }

  provider.registerGrantType(TOKEN_EXCHANGE, exchange, ['subject_token', 'subject_token_type', 'resource', 'scope']);
}
