// Organization tokens at refresh, as Logto gives them. It knows the engine's context, and no page and no socket.

import { errors } from 'oidc-provider';

export const ORGANIZATIONS = 'urn:logto:resource:organizations';
const SCOPE = 'urn:logto:scope:organizations';

/** Return the organization that a refresh asks for, if it does. Any other request's parameter is ignored. */
export function organizationOf({ oidc }) {
  if (oidc.params?.grant_type !== 'refresh_token') return undefined;
  return oidc.body?.organization_id || undefined;
}

/** Refuse who is no member, and a refresh token without the scope. Nothing is spent by a refusal. */
export function checkOrganization(ctx) {
  const organization = organizationOf(ctx);
  if (organization === undefined) return;
  const { Account, RefreshToken } = ctx.oidc.entities;
  if (!Account.organizations.includes(organization)) {
    const refusal = new errors.AccessDenied('user is not a member of the organization');
    refusal.status = 403;
    refusal.statusCode = 403;
    throw refusal;
  }
  if (!RefreshToken.scopes.has(SCOPE)) {
    throw new errors.InsufficientScope('refresh token missing required scope', SCOPE);
  }
}

/** Without `resource` the token is for the organization itself. */
export function audienceOf(ctx, indicator) {
  const organization = organizationOf(ctx);
  return organization && !ctx.oidc.params.resource ? `urn:logto:organization:${organization}` : indicator;
}
