// The provider's few pages, as strings of HTML. It knows no provider and no request.

export function escape(text) {
  return String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

function page(title, body) {
  return `<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escape(title)}</title>
<link rel="icon" href="data:,"></head>
<body><main><h1>${escape(title)}</h1>${body}</main></body>
</html>`;
}

const CANCEL = '<p><button name="action" value="cancel" formnovalidate>Cancel</button></p>';

/** The users as submit buttons, a way to the register page, and a way back. */
export function signInPage({ action, users, hint }) {
  const buttons = users.map(({ sub, name }) => `<li><button name="sub" value="${escape(sub)}">${escape(name)}</button></li>`);
  const hinted = hint ? `<p>Hint: <output>${escape(hint)}</output></p>` : '';
  return page('Sign in', `${hinted}<form method="post" action="${escape(action)}">
<ul>${buttons.join('')}</ul>
<p><a href="${escape(action)}?screen=register">Create account</a></p>${CANCEL}</form>`);
}

/** One field, the new user's name. */
export function registerPage({ action }) {
  return page('Create account', `<form method="post" action="${escape(action)}">
<label>Name <input name="name" required></label> <button name="action" value="register">Create account</button>${CANCEL}</form>`);
}

/** What a visitor of a third-party app is asked. First-party apps never show it. */
export function consentPage({ action, clientId, scopes }) {
  const items = scopes.map((scope) => `<li>${escape(scope)}</li>`).join('');
  return page(`Allow ${clientId}?`, `<ul>${items}</ul><form method="post" action="${escape(action)}">
<button name="action" value="consent">Allow</button>${CANCEL}</form>`);
}

/** The end-session form that sends itself; a button for browsers without scripts. */
export function signOutPage(form) {
  const complete = form.replace('</form>', '<input type="hidden" name="logout" value="yes"><noscript><button>Sign out</button></noscript></form>');
  return page('Signing out', `${complete}<script>document.forms[0].submit()</script>`);
}

export function messagePage(title, text) {
  return page(title, `<p>${escape(text)}</p>`);
}
