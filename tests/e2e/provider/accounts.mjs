// The people who can sign in, and which claims go where. It knows no HTTP.

import { randomUUID } from 'node:crypto';

// Scope → claims, as Logto releases them.
export const CLAIMS = {
  openid: ['sub'],
  profile: [
    'name', 'family_name', 'given_name', 'middle_name', 'nickname', 'preferred_username', 'profile', 'picture',
    'website', 'gender', 'birthdate', 'zoneinfo', 'locale', 'username', 'created_at', 'updated_at',
  ],
  email: ['email', 'email_verified'],
  phone: ['phone_number', 'phone_number_verified'],
  address: ['address'],
  roles: ['roles'],
  custom_data: ['custom_data'],
  identities: ['identities', 'sso_identities'],
  'urn:logto:scope:organizations': ['organizations', 'organization_data'],
  'urn:logto:scope:organization_roles': ['organization_roles'],
};

const USERINFO_ONLY = new Set(['custom_data', 'identities', 'sso_identities', 'organization_data']);
const CREATED_AT = 1700000000000; // Logto counts these in milliseconds

function person(sub, name, more = {}) {
  return {
    sub,
    name,
    username: sub,
    picture: null,
    email: `${sub}@example.com`,
    email_verified: true,
    custom_data: { theme: 'dark' },
    created_at: CREATED_AT,
    updated_at: CREATED_AT,
    ...more,
  };
}

/** Text of about `bytes` bytes that compression or a dictionary would not shrink to nothing. */
function bulk(bytes) {
  return Array.from({ length: Math.ceil(bytes / 36) }, () => randomUUID()).join('').slice(0, bytes);
}

/** Build the accounts. `bea` carries `bigClaimsBytes` of claims in the scope `profile`, `max` more than cookies hold. */
export function createAccounts({ bigClaimsBytes }) {
  const people = [
    person('alice', 'Alice Example', {
      organizations: ['org-1'],
      organization_data: [{ id: 'org-1', name: 'First', description: null }],
      organization_roles: ['org-1:admin'],
      roles: ['editor'],
    }),
    person('bob', 'Bob <b>Example</b>'),
    person('bea', 'Bea With-Many-Claims', { profile: bulk(bigClaimsBytes) }),
    person('max', 'Max Too-Large', { profile: bulk(9_000) }),
  ];
  const accounts = new Map(people.map((claims) => [claims.sub, claims]));
  const suspended = new Set();

  return {
    all: () => [...accounts.values()],
    register(name) {
      const sub = `user-${randomUUID().slice(0, 8)}`;
      accounts.set(sub, person(sub, name));
      return sub;
    },
    suspend: (sub) => suspended.add(sub),
    async find(_ctx, sub) {
      const claims = accounts.get(sub);
      if (!claims || suspended.has(sub)) return undefined;
      return {
        accountId: sub,
        organizations: claims.organizations ?? [],
        async claims(use) {
          const released = Object.entries(claims).filter(([name]) => use === 'userinfo' || !USERINFO_ONLY.has(name));
          return Object.fromEntries(released);
        },
      };
    },
  };
}
