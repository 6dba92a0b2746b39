"use strict";
// A request as the fragment of a link. No server gets to see a fragment, so no log has the prompt.
//
// A request: { prompt or messages, max_tokens, seed, stop, grammar, rule, a, b }. All values are texts as the form
// holds them.
// messages: [{ role, content }]; a, b: settings by name, and b is null where nothing is compared. A link also has
// `from`, the fingerprint of the server: another one may give another text.
const link = (() => {
  const ROLES = ["system", "user", "assistant"];
  const COMMON = ["max_tokens", "seed", "stop", "grammar", "rule"];
  const GRAMMARS = ["", "choice", "regex", "json", "grammar"]; // kinds of rules that a text may follow
  const FROM = "from";

  function write(request, names, fingerprint) {
    const found = new URLSearchParams();
    if (request.messages) found.set("messages", JSON.stringify(request.messages));
    else found.set("prompt", request.prompt);
    for (const name of COMMON) if (request[name]) found.set(name, request[name]);
    for (const name of names) if (request.a[name]) found.set(name, request.a[name]);
    if (request.b !== null) found.set("compare", "yes");
    for (const name of names) if (request.b?.[name]) found.set(`b.${name}`, request.b[name]);
    found.set(FROM, fingerprint);
    return `#${found}`;
  }

  /** The request of a fragment, null where it has none. Throws an Error with a sentence for the reader. */
  function read(fragment, names) {
    const given = new URLSearchParams(fragment.replace(/^#/, ""));
    if (![...given.keys()].length) return null;
    const empty = Object.fromEntries([...COMMON, FROM].map((name) => [name, ""]));
    const request = { ...empty, a: {}, b: given.has("compare") ? {} : null };
    for (const [name, value] of given) {
      const [, pane, setting] = name.match(/^(b\.)?(.*)$/s);
      if (name === "prompt" || name === FROM || COMMON.includes(name)) request[name] = value;
      else if (name === "messages") request.messages = messages_of(value);
      else if (name === "compare") continue;
      else if (!names.includes(setting)) throw new Error(`The link names “${name}”, which this page does not know.`);
      else if (pane) (request.b ??= {})[setting] = value;
      else request.a[setting] = value;
    }
    if (!GRAMMARS.includes(request.grammar)) throw new Error(`The link names no grammar: “${request.grammar}”.`);
    if (request.messages === undefined && request.prompt === undefined) throw new Error("The link has no prompt.");
    return request;
  }

  function messages_of(text) {
    const is_message = (one) => ROLES.includes(one?.role) && typeof one.content === "string";
    try {
      const messages = JSON.parse(text);
      if (messages.length > 0 && messages.every(is_message)) {
        return messages.map(({ role, content }) => ({ role, content }));
      }
    } catch {
      // the same as messages of another shape
    }
    throw new Error("The link’s messages are damaged.");
  }

  return { COMMON, ROLES, read, write };
})();
