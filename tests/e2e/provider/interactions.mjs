// What happens between the authorization request and the call-back: sign in, register, consent, cancel.
// It knows the provider and our pages, and nothing of sockets or of the test controls.

import { errors } from 'oidc-provider';
import { consentPage, messagePage, registerPage, signInPage } from './pages.mjs';

async function readForm(req) {
  let body = '';
  for await (const chunk of req) body += chunk;
  return new URLSearchParams(body);
}

function sendPage(res, html, status = 200) {
  res.writeHead(status, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' });
  res.end(html);
}

/** Grant all that was asked. Logto does so for first-party apps without a page. */
async function grantAll(provider, { grantId, params, prompt: { details }, session }) {
  const grant = (grantId && await provider.Grant.find(grantId))
    ?? new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (details.missingOIDCScope) grant.addOIDCScope(details.missingOIDCScope.join(' '));
  for (const [indicator, scopes] of Object.entries(details.missingResourceScopes ?? {})) {
    grant.addResourceScope(indicator, scopes.join(' '));
  }
  return { consent: { grantId: await grant.save() } };
}

/** A third-party app gets its bare call-back URL, as from Logto; a first-party one `access_denied`. */
function cancel(provider, req, res, { params }, thirdParty) {
  if (!thirdParty) return provider.interactionFinished(req, res, { error: 'access_denied' });
  res.writeHead(303, { location: params.redirect_uri });
  return res.end();
}

function show(res, url, interaction, accounts) {
  const { params, prompt } = interaction;
  const action = url.pathname;
  if (prompt.name === 'consent') {
    return sendPage(res, consentPage({ action, clientId: params.client_id, scopes: (params.scope ?? '').split(' ') }));
  }
  const screen = url.searchParams.get('screen') ?? params.first_screen ?? '';
  if (screen === 'register' || screen === 'identifier:register') return sendPage(res, registerPage({ action }));
  return sendPage(res, signInPage({ action, users: accounts.all(), hint: params.login_hint }));
}

async function submit(provider, req, res, interaction, accounts, thirdParty) {
  const form = await readForm(req);
  const action = form.get('action');
  if (action === 'cancel') return cancel(provider, req, res, interaction, thirdParty);
  if (interaction.prompt.name === 'consent') {
    return provider.interactionFinished(req, res, await grantAll(provider, interaction));
  }
  const accountId = action === 'register' ? accounts.register(form.get('name')) : form.get('sub');
  return provider.interactionFinished(req, res, { login: { accountId } });
}

/** Answer `/interaction/<uid>`: show the page on GET, act on POST. */
export async function handleInteraction(provider, req, res, url, accounts) {
  try {
    const interaction = await provider.interactionDetails(req, res);
    const client = await provider.Client.find(interaction.params.client_id);
    const thirdParty = client.third_party === true;
    if (req.method === 'POST') return await submit(provider, req, res, interaction, accounts, thirdParty);
    if (interaction.prompt.name === 'consent' && !thirdParty) {
      return await provider.interactionFinished(req, res, await grantAll(provider, interaction));
    }
    return show(res, url, interaction, accounts);
  } catch (error) {
    if (!(error instanceof errors.SessionNotFound)) throw error;
    return sendPage(res, messagePage('This sign-in has expired', 'Go back to the app and start again.'), 400);
  }
}
