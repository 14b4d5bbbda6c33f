// Faults of an endpoint that a test plans: before a request is processed, and after, when only its answer is left.
// It knows names of endpoints and Node's responses, and nothing of OpenID Connect.

const HOLD = 'hold';

/** What is planned for one endpoint and phase: `times` more requests, each held, delayed, refused or cut. */
function planned(query) {
  return {
    times: Number(query.get('times') ?? 1),
    delay: Number(query.get('delay') ?? 0), // milliseconds
    status: query.has('status') ? Number(query.get('status')) : undefined,
    retryAfter: query.get('retry_after'),
    cut: query.get('cut') === '1', // the connection ends without an answer
    hold: query.get(HOLD) === '1', // waits until the test lets go
  };
}

const wait = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

function refuse(res, { status, retryAfter }) {
  const headers = { 'content-type': 'application/json' };
  if (retryAfter) headers['retry-after'] = retryAfter;
  res.writeHead(status, headers);
  res.end(JSON.stringify({ code: 'test.planned_failure', message: 'planned by a test' }));
}

export function createFaults() {
  const plans = new Map(); // `token:before` → plan
  const held = new Map(); // `token:before` → [let go]

  const key = (endpoint, phase) => `${endpoint}:${phase}`;

  function take(endpoint, phase) {
    const plan = plans.get(key(endpoint, phase));
    if (!plan || plan.times <= 0) return undefined;
    plan.times -= 1;
    return plan;
  }

  /** Wait out what is planned. Return whether the connection shall be cut. */
  async function suffer(plan, endpoint, phase) {
    if (plan.delay) await wait(plan.delay);
    if (!plan.hold) return plan.cut;
    const name = key(endpoint, phase);
    return new Promise((letGo) => { held.set(name, [...(held.get(name) ?? []), letGo]); });
  }

  function letGo(name, cut) {
    const waiting = held.get(name) ?? [];
    held.delete(name);
    waiting.forEach((go) => go(cut));
    return waiting.length;
  }

  return {
    plan(query) {
      plans.set(key(query.get('endpoint'), query.get('phase') ?? 'before'), planned(query));
      return { ok: true };
    },
    held: () => Object.fromEntries([...held].map(([name, waiting]) => [name, waiting.length])),
    release(query) {
      const name = key(query.get('endpoint'), query.get('phase') ?? 'before');
      plans.delete(name);
      return { released: letGo(name, query.get('cut') === '1') };
    },
    clear() {
      plans.clear();
      [...held.keys()].forEach((name) => letGo(name, true));
    },

    /** Before processing. Return whether the request is done with. */
    async before(res, endpoint) {
      const plan = take(endpoint, 'before');
      if (!plan) return false;
      if (await suffer(plan, endpoint, 'before')) {
        res.destroy();
        return true;
      }
      if (plan.status === undefined) return false;
      refuse(res, plan);
      return true;
    },

    /** After processing: what the engine has decided stands, and its answer is late or lost. */
    after(res, endpoint) {
      const plan = take(endpoint, 'after');
      if (!plan) return;
      const end = res.end.bind(res);
      const writeHead = res.writeHead.bind(res);
      res.writeHead = (...head) => { writeHead(...head); return res; };
      res.end = (...body) => {
        suffer(plan, endpoint, 'after').then((cut) => (cut ? res.destroy() : end(...body)));
        return res;
      };
    },
  };
}
