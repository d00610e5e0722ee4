// The chat with a published bot, in a page: <script src="https://HOST/web/widget.js" data-bot="ID" data-key="KEY" defer></script>
// data-title names it, data-color is the colour of its button, data-open="true" opens it at once. A call of the bot (an intent without
// a text) is the event `edgeagent-call` on the element, with {intent, slots}; preventDefault() keeps the text of the hand-over away.
(() => {
  "use strict";
  const script = document.currentScript;
  if (!script || !script.dataset.bot || !script.dataset.key) {
    console.error("edgeagent widget: data-bot and data-key are needed");
    return;
  }
  const base = new URL(script.src).origin + "/v1/bots/" + encodeURIComponent(script.dataset.bot);
  const headers = { authorization: "Bearer " + script.dataset.key, "content-type": "application/json" };
  const color = /^#[0-9a-f]{6}$/i.test(script.dataset.color || "") ? script.dataset.color : "#0b5394";
  const MAX_CHARS = 2000;
  let conversation = null, isBusy = false, isKnown = false;

  const css = `
:host { all: initial; position: fixed; right: 16px; bottom: 16px; z-index: 2147483000; font: 16px/1.45 system-ui, sans-serif; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
button { font: inherit; cursor: pointer; border: 0; border-radius: 8px; background: ${color}; color: #fff; padding: 10px 16px; }
button:focus-visible, textarea:focus-visible, .log:focus-visible { outline: 3px solid #f5a623; outline-offset: 2px; }
button:disabled { background: #6b6b6b; cursor: default; }
.panel { display: flex; flex-direction: column; width: min(380px, calc(100vw - 32px)); height: min(540px, calc(100vh - 32px));
  background: #fff; color: #1a1a1a; border: 1px solid #767676; border-radius: 12px; overflow: hidden; }
.head { display: flex; align-items: center; gap: 8px; padding: 8px 8px 8px 16px; background: ${color}; color: #fff; }
h2 { flex: 1; margin: 0; font-size: 17px; font-weight: 600; }
.log { flex: 1; overflow-y: auto; padding: 12px 16px; }
.log p { margin: 0 0 10px; padding: 8px 12px; border-radius: 10px; white-space: pre-wrap; overflow-wrap: anywhere; width: fit-content;
  max-width: 90%; }
.bot { background: #eef1f4; }
.user { background: #dcebff; margin-left: auto !important; }
.error { background: #fde8e6; color: #8a1108; }
.note { display: block; font-size: 13px; color: #4a4a4a; }
.who { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
form { display: flex; gap: 8px; padding: 12px; border-top: 1px solid #d0d0d0; }
textarea { flex: 1; font: inherit; color: inherit; background: #fff; border: 1px solid #767676; border-radius: 8px; padding: 8px;
  resize: none; height: 44px; }
@media (prefers-color-scheme: dark) {
  .panel { background: #1c1f23; color: #f2f2f2; } .bot { background: #2c3137; } .user { background: #1f4470; }
  .error { background: #4a1713; color: #ffd9d5; } .note { color: #c4c4c4; } textarea { background: #1c1f23; }
}`;

  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const host = document.createElement("div");
  host.id = "edgeagent-widget";
  const root = host.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(css);
  root.adoptedStyleSheets = [sheet];

  const title = make("h2", { id: "title", textContent: script.dataset.title || "Chat" });
  const opener = make("button", { type: "button", textContent: script.dataset.title || "Chat" });
  const closer = make("button", { type: "button", textContent: "×" });
  closer.setAttribute("aria-label", "Close the chat");
  const log = make("div", { className: "log", tabIndex: 0 });
  log.setAttribute("role", "log");
  log.setAttribute("aria-live", "polite");
  log.setAttribute("aria-label", "Messages");
  const state = make("p", { className: "note", hidden: true, textContent: "The bot is writing …" });
  state.setAttribute("role", "status");
  const input = make("textarea", { maxLength: MAX_CHARS, rows: 1, placeholder: "Your question" });
  input.setAttribute("aria-label", "Your question");
  const send = make("button", { type: "submit", textContent: "Send" });
  const form = make("form", {}, input, send);
  const panel = make("section", { className: "panel", hidden: true },
    make("div", { className: "head" }, title, closer), log, form);
  panel.setAttribute("role", "dialog");
  panel.setAttribute("aria-labelledby", "title");
  opener.setAttribute("aria-expanded", "false");
  root.append(opener, panel);
  log.append(state);

  const show = (kind, who, text, note) => {
    const line = make("p", { className: kind }, make("span", { className: "who", textContent: who + ": " }), String(text));
    if (note) line.append(make("span", { className: "note", textContent: note }));
    log.insertBefore(line, state);
    log.scrollTop = log.scrollHeight;
  };

  const ask = async (path, body) => {
    let reply, got = null;
    try {
      reply = await fetch(base + path, {
        method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), credentials: "omit", referrerPolicy: "no-referrer",
      });
      got = await reply.json();
    } catch {
      throw new Error("The bot cannot be reached. Please try again later.");
    }
    if (reply.ok) return got;
    const wait = Number(reply.headers.get("retry-after")) || 0;
    if (reply.status === 429 || reply.status === 503) {
      throw new Error("The bot is busy. Please try again in " + Math.max(1, Math.ceil(wait)) + " s.");
    }
    throw new Error("The bot cannot answer this.");
  };

  const answered = (got) => {
    conversation = got.conversation;
    if (got.basis === "call") {
      const detail = { intent: got.intent, slots: got.slots };
      const event = new CustomEvent("edgeagent-call", { detail, bubbles: true, cancelable: true });
      if (!host.dispatchEvent(event)) return;
    }
    if (!got.text) return;
    const names = (got.citations || []).map(String).join(", ");
    show("bot", title.textContent, got.text, names && "Source: " + names);
  };

  const say = async () => {
    const text = input.value.trim();
    if (!text || isBusy) return;
    show("user", "You", text);
    input.value = "";
    isBusy = send.disabled = true;
    state.hidden = false;
    try {
      answered(await ask("/messages", conversation ? { text, conversation } : { text }));
    } catch (error) {
      show("error", title.textContent, error.message);
    } finally {
      isBusy = send.disabled = false;
      state.hidden = true;
      input.focus();
    }
  };

  const open = async () => {
    panel.hidden = false;
    opener.hidden = true;
    opener.setAttribute("aria-expanded", "true");
    input.focus();
    if (isKnown) return;
    isKnown = true;
    try {
      const bot = await ask("");
      title.textContent = script.dataset.title || bot.title;
      if (bot.greeting) show("bot", title.textContent, bot.greeting);
    } catch (error) {
      show("error", title.textContent, error.message);
    }
  };
  const close = () => {
    panel.hidden = true;
    opener.hidden = false;
    opener.setAttribute("aria-expanded", "false");
    opener.focus();
  };

  opener.addEventListener("click", open);
  closer.addEventListener("click", close);
  form.addEventListener("submit", (event) => { event.preventDefault(); say(); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); say(); }
  });
  panel.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
  const start = () => { document.body.append(host); if (script.dataset.open === "true") open(); };
  if (document.body) start(); else document.addEventListener("DOMContentLoaded", start);
})();
