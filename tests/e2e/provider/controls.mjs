// What only a test may do to the provider: count calls, plan faults, take it away, suspend a user.

import { createFaults } from './faults.mjs';

const SETTLE = { ok: true };

/** Name an endpoint by its path under the issuer: `token`, `jwks`, `session/end`; the metadata is `discovery`. */
export function endpointOf(path) {
  const name = path.slice('/oidc/'.length);
  if (name === '.well-known/openid-configuration') return 'discovery';
  return name.startsWith('auth/') ? 'resume' : name;
}

export function createControls({ accounts, ageSessions, rotateKeys }) {
  const counts = {};
  const outcomes = { refreshes: {}, errors: {}, reused: 0, revoked: 0 };
  const authorizations = [];
  const faults = createFaults();
  let down = false;

  const count = (counters, name) => { counters[name] = (counters[name] ?? 0) + 1; };

  function reset() {
    [counts, outcomes.refreshes, outcomes.errors].forEach((counters) => {
      Object.keys(counters).forEach((name) => delete counters[name]);
    });
    outcomes.reused = 0;
    outcomes.revoked = 0;
    authorizations.length = 0;
    faults.clear();
    return SETTLE;
  }

  const actions = {
    counts: () => counts,
    outcomes: () => outcomes,
    authorizations: () => authorizations,
    reset,
    fail: faults.plan,
    held: faults.held,
    release: faults.release,
    down: () => { down = true; return SETTLE; },
    up: () => { down = false; return SETTLE; },
    suspend: (query) => { accounts.suspend(query.get('sub')); return SETTLE; },
    'age-sessions': (query) => { ageSessions(Number(query.get('seconds'))); return SETTLE; },
    'rotate-keys': () => { rotateKeys(); return SETTLE; },
  };

  function answer(res, url) {
    const action = actions[url.pathname.slice('/__test__/'.length)];
    const body = JSON.stringify(action ? action(url.searchParams) : { error: 'unknown control' });
    res.writeHead(action ? 200 : 404, { 'content-type': 'application/json' });
    res.end(body);
  }

  function note(endpoint, url) {
    count(counts, endpoint);
    if (endpoint === 'auth') authorizations.push([...url.searchParams]);
  }

  /** Count what the token endpoint decided: refreshes by `resource|organization`, refusals, reuse, revoked grants. */
  function watch(provider) {
    provider.on('grant.success', ({ oidc }) => {
      count(counts, `token:${oidc.params.grant_type}`);
      if (oidc.params.grant_type !== 'refresh_token') return;
      count(outcomes.refreshes, `${oidc.params.resource ?? ''}|${oidc.body.organization_id ?? ''}`);
    });
    provider.on('grant.error', (_ctx, error) => {
      count(outcomes.errors, error.error);
      if (error.error_detail === 'refresh token already used') outcomes.reused += 1;
    });
    provider.on('grant.revoked', () => { outcomes.revoked += 1; });
  }

  return { answer, note, watch, before: faults.before, after: faults.after, isDown: () => down };
}
