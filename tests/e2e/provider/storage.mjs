// Keeps what the provider issues in memory. It knows models and grants, and nothing of HTTP.

import { errors } from 'oidc-provider';

const GRANTABLE = new Set(['AccessToken', 'AuthorizationCode', 'RefreshToken']);

/**
 * Build an adapter factory for oidc-provider.
 *
 * A refresh token that was rotated stays usable for `reuseGrace` seconds, as in Logto. After that oidc-provider
 * sees it as consumed, refuses it and revokes the whole grant.
 */
export function createStorage({ reuseGrace }) {
  const rows = new Map();
  const sessionsByUid = new Map();

  return class Storage {
    constructor(model) {
      this.model = model;
      this.grace = model === 'RefreshToken' ? reuseGrace * 1000 : 0; // milliseconds
    }

    key(id) {
      return `${this.model}:${id}`;
    }

    async upsert(id, payload) {
      rows.set(this.key(id), { payload: { ...payload } });
      if (this.model === 'Session') sessionsByUid.set(payload.uid, id);
    }

    async find(id) {
      const row = rows.get(this.key(id));
      if (!row) return undefined;
      const spent = row.consumedAt !== undefined && Date.now() - row.consumedAt >= this.grace;
      return spent ? { ...row.payload, consumed: Math.floor(row.consumedAt / 1000) } : { ...row.payload };
    }

    async findByUid(uid) {
      return this.find(sessionsByUid.get(uid));
    }

    async findByUserCode() {
      return undefined;
    }

    /** Let every sign-in have happened so many seconds earlier. */
    static ageSessions(seconds) {
      rows.forEach(({ payload }, key) => {
        if (key.startsWith('Session:') && payload.loginTs !== undefined) payload.loginTs -= seconds;
      });
    }

    /** Spend a token. Of two uses that overtook each other since `find`, the second one is a reuse as well. */
    async consume(id) {
      const row = rows.get(this.key(id));
      if (!row) return;
      if (row.consumedAt !== undefined && Date.now() - row.consumedAt >= this.grace) {
        await this.revokeByGrantId(row.payload.grantId);
        throw new errors.InvalidGrant('refresh token already used');
      }
      row.consumedAt ??= Date.now(); // the first use starts the grace
    }

    async destroy(id) {
      rows.delete(this.key(id));
    }

    async revokeByGrantId(grantId) {
      for (const [key, { payload }] of rows) {
        if (payload.grantId === grantId && GRANTABLE.has(key.split(':', 1)[0])) rows.delete(key);
      }
    }
  };
}
