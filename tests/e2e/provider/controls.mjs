// What only a test may do to the provider: count calls, let some fail or wait, take it away, suspend a user.

const SETTLE = { ok: true };

/** Name an endpoint by its path under the issuer: `token`, `jwks`, `session/end`; the metadata is `discovery`. */
export function endpointOf(path) {
  const name = path.slice('/oidc/'.length);
  if (name === '.well-known/openid-configuration') return 'discovery';
  return name.startsWith('auth/') ? 'resume' : name;
}

export function createControls({ accounts, rotateKeys }) {
  const counts = {};
  const failures = new Map();
  const authorizations = [];
  let down = false;

  const actions = {
    counts: () => counts,
    authorizations: () => authorizations,
    reset: () => {
      Object.keys(counts).forEach((name) => delete counts[name]);
      failures.clear();
      authorizations.length = 0;
      return SETTLE;
    },
    fail: (query) => {
      failures.set(query.get('endpoint'), {
        status: query.has('status') ? Number(query.get('status')) : undefined,
        times: Number(query.get('times') ?? 1),
        delay: Number(query.get('delay') ?? 0),
        retryAfter: query.get('retry_after'),
      });
      return SETTLE;
    },
    down: () => { down = true; return SETTLE; },
    up: () => { down = false; return SETTLE; },
    suspend: (query) => { accounts.suspend(query.get('sub')); return SETTLE; },
    'rotate-keys': () => { rotateKeys(); return SETTLE; },
  };

  function answer(res, url) {
    const action = actions[url.pathname.slice('/__test__/'.length)];
    const body = JSON.stringify(action ? action(url.searchParams) : { error: 'unknown control' });
    res.writeHead(action ? 200 : 404, { 'content-type': 'application/json' });
    res.end(body);
  }

  function note(endpoint, url) {
    counts[endpoint] = (counts[endpoint] ?? 0) + 1;
    if (endpoint === 'auth') authorizations.push([...url.searchParams]);
  }

  /** Take the next planned failure of an endpoint; wait out its delay. Return whether the request was answered here. */
  async function interfere(res, endpoint) {
    const failure = failures.get(endpoint);
    if (!failure || failure.times <= 0) return false;
    failure.times -= 1;
    if (failure.delay) await new Promise((resolve) => { setTimeout(resolve, failure.delay); });
    if (failure.status === undefined) return false;
    const headers = { 'content-type': 'application/json' };
    if (failure.retryAfter) headers['retry-after'] = failure.retryAfter;
    res.writeHead(failure.status, headers);
    res.end(JSON.stringify({ code: 'test.planned_failure', message: 'planned by a test' }));
    return true;
  }

  return { answer, note, interfere, isDown: () => down, count: (name) => note(name) };
}
