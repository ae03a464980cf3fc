// Every way in which a page can make its browser ask for a URL. Each is called with a URL of its own.

const add = (tag, attributes = {}, parent = document.body) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return parent.appendChild(element);
};
const svg = (tag, attributes, parent) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return parent.appendChild(element);
};
const link = (rel, more = {}) => (url) => add("link", { rel, href: url, ...more }, document.head);
const style = (css) => (url) => (add("style").textContent = css(url));
const styled = (css) => (url) => (add("p", { style: css(url) }).textContent = "x");
const here = (path, url, more = "") => `${path}?to=${encodeURIComponent(url)}${more}`;
const ask = (options) => (url) => fetch(url, options);
// In a frame, so that the page itself stays.
const frame = (html, more = {}) => add("iframe", { srcdoc: html, ...more });
const form = (method, more = {}) => (url) => {
  const named = add("iframe", { name: `form-${Math.random()}` });
  const element = add("form", { action: url, method, target: named.name, ...more });
  add("input", { name: "model", value: "m" }, element);
  element.submit();
};
const xhr = (method, headers = {}) => (url) => {
  const request = new XMLHttpRequest();
  request.open(method, url);
  for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
  request.send(method === "POST" ? "{}" : null);
};
const popup = (go) => (url) => go(window.open("about:blank"), url);
const click = (attributes) => (url) => add("a", attributes(url)).click();
const hidden = { referrerpolicy: "no-referrer" };
const plain = { "Content-Type": "text/plain" };
const json = { "Content-Type": "application/json", "x-stainless-os": "x" };
const speculate = (kind) => (url) => {
  const rules = { [kind]: [{ source: "list", urls: [url], referrer_policy: "no-referrer" }] };
  add("script", { type: "speculationrules" }).textContent = JSON.stringify(rules);
};
const WAYS = {
  "img": (url) => (new Image().src = url),
  "img no-referrer": (url) => add("img", { src: url, ...hidden }),
  "img unsafe-url": (url) => add("img", { src: url, referrerpolicy: "unsafe-url" }),
  "img srcset": (url) => add("img", { srcset: `${url} 1x` }),
  "img cors": (url) => add("img", { src: url, crossorigin: "" }),
  "img by redirect": (url) => add("img", { src: here("/redirect", url) }),
  "img by two hosts": (url) => add("img", { src: here(`${OTHER}/redirect`, url) }),
  "picture": (url) => { const p = add("picture"); add("source", { srcset: url }, p); add("img", {}, p); },
  "input image": (url) => add("input", { type: "image", src: url }),
  "svg image": (url) => svg("image", { href: url, width: 1, height: 1 }, svg("svg", {}, document.body)),
  "body background": (url) => document.body.setAttribute("background", url),
  "script": (url) => add("script", { src: url }),
  "script no-referrer": (url) => add("script", { src: url, ...hidden }),
  "script module": (url) => add("script", { type: "module", src: url }),
  "import": (url) => import(url),
  "stylesheet": link("stylesheet"),
  "prefetch": link("prefetch"),
  "prefetch no-referrer": link("prefetch", hidden),
  "preload": link("preload", { as: "script" }),
  "preload fetch": link("preload", { as: "fetch", crossorigin: "" }),
  "modulepreload": link("modulepreload"),
  "icon": link("icon"),
  "manifest": link("manifest"),
  "prerender": link("prerender"),
  "link header": (url) => add("iframe", { src: here("/link", url) }),
  "css url": styled((url) => `background: url("${url}")`),
  "css import": style((url) => `@import "${url}";`),
  "css cursor": styled((url) => `cursor: url("${url}"), auto`),
  "css list": styled((url) => `display: list-item; list-style-image: url("${url}")`),
  "css content": style((url) => `p::before { content: url("${url}"); }`),
  "font": style((url) => `@font-face { font-family: F; src: url("${url}"); } p { font-family: F; }`),
  "iframe": (url) => add("iframe", { src: url }),
  "iframe no-referrer": (url) => add("iframe", { src: url, ...hidden }),
  "iframe sandboxed": (url) => add("iframe", { src: url, sandbox: "" }),
  "object": (url) => add("object", { data: url }),
  "object image": (url) => add("object", { data: url, type: "image/png" }),
  "embed": (url) => add("embed", { src: url, type: "text/html" }),
  "frame": (url) => frame(`<frameset><frame src="${url}"></frameset>`),
  "video": (url) => add("video", { src: url, preload: "auto" }),
  "video poster": (url) => add("video", { poster: url }),
  "audio": (url) => add("audio", { src: url, preload: "auto" }),
  "track": (url) => {
    const video = add("video", { src: "/none.mp4", crossorigin: "" });
    add("track", { src: url, default: "" }, video).track.mode = "showing";
  },
  "fetch no-cors": ask({ mode: "no-cors" }),
  "fetch no-cors no-referrer": ask({ mode: "no-cors", referrerPolicy: "no-referrer" }),
  "fetch no-cors HEAD": ask({ mode: "no-cors", method: "HEAD" }),
  "fetch no-cors POST": ask({ mode: "no-cors", method: "POST", body: "{}", headers: plain }),
  "fetch no-cors POST no-referrer":
    ask({ mode: "no-cors", method: "POST", body: "{}", referrerPolicy: "no-referrer" }),
  "fetch keepalive": ask({ mode: "no-cors", method: "POST", body: "{}", keepalive: true }),
  "fetch cors": ask({}),
  "fetch cors no-referrer": ask({ referrerPolicy: "no-referrer" }),
  "fetch cors POST plain": ask({ method: "POST", body: "{}", headers: plain }),
  "fetch cors POST json": ask({ method: "POST", body: "{}", headers: json }),
  "fetch cors DELETE": ask({ method: "DELETE" }),
  "fetch by redirect": (url) => fetch(here("/redirect", url)),
  "fetch by two hosts": (url) => fetch(here(`${OTHER}/redirect`, url)),
  "fetch no-cors by two hosts": (url) => fetch(here(`${OTHER}/redirect`, url), { mode: "no-cors" }),
  "fetch POST by redirect": (url) => fetch(here("/redirect", url, "&status=307"), { method: "POST" }),
  "fetch through a server here": (url) => fetch(here(`${LOCAL}/redirect`, url), { mode: "no-cors" }),
  "beacon": (url) => navigator.sendBeacon(url, "{}"),
  "ping": click((url) => ({ href: "#ping", ping: url })),
  "xhr": xhr("GET"),
  "xhr HEAD": xhr("HEAD"),
  "xhr POST": xhr("POST"),
  "xhr POST json": xhr("POST", json),
  "event source": (url) => new EventSource(url),
  "web socket": (url) => new WebSocket(url.replace("http:", "ws:")),
  "worker": (url) => new Worker(url),
  "worker module": (url) => new Worker(url, { type: "module" }),
  "shared worker": (url) => new SharedWorker(url),
  "fetch in a worker": (url) => new Worker(here("/worker.js", url, "&way=fetch")),
  "import scripts": (url) => new Worker(here("/worker.js", url, "&way=import")),
  "fetch in a blob worker": (url) => {
    const code = `fetch(${JSON.stringify(url)}, { mode: "no-cors" })`;
    new Worker(URL.createObjectURL(new Blob([code])));
  },
  "service worker": (url) => navigator.serviceWorker.register(url),
  "worklet": (url) => CSS.paintWorklet.addModule(url),
  "form GET": form("GET"),
  "form POST": form("POST"),
  "form POST plain": form("POST", { enctype: "text/plain" }),
  "form POST no-referrer": form("POST", { rel: "noreferrer" }),
  "meta refresh": (url) => add("iframe", { src: here("/refresh", url) }),
  "refresh header": (url) => add("iframe", { src: here("/refresh-header", url) }),
  "report of a policy": (url) => add("iframe", { src: here("/report", url) }),
  "fetch later": (url) => fetchLater(url, { activateAfter: 0 }),
  "background fetch": (url) => navigator.serviceWorker.register("/empty.js").then(async () =>
    (await navigator.serviceWorker.ready).backgroundFetch.fetch("x", url)),
  "dictionary": link("compression-dictionary"),
  "search": link("search", { type: "application/opensearchdescription+xml" }),
  "login provider": (configURL) =>
    navigator.credentials.get({ identity: { providers: [{ configURL, clientId: "x" }] } }),
  "payment": (url) => new PaymentRequest([{ supportedMethods: url }],
    { total: { label: "x", amount: { currency: "USD", value: "1" } } }).canMakePayment(),
  "speculation prefetch": speculate("prefetch"),
  "speculation prerender": speculate("prerender"),
  "img of a null origin": (url) => frame(`<img src="${url}">`, { sandbox: "" }),
  "fetch of a null origin": (url) => frame(`<script>fetch("${url}")</script>`, { sandbox: "allow-scripts" }),
  "POST of a null origin": (url) =>
    frame(`<script>fetch("${url}", { method: "POST" })</script>`, { sandbox: "allow-scripts" }),
  "img of a data page": (url) => add("iframe", { src: `data:text/html,<img src="${url}">` }),
  "fetch of a data page": (url) => add("iframe", { src: `data:text/html,<script>fetch("${url}")</script>` }),
  "img of a blob page": (url) => {
    const page = new Blob([`<img src="${url}">`], { type: "text/html" });
    add("iframe", { src: URL.createObjectURL(page) });
  },
  // Last of all: the page stays behind these windows, and a hidden page has little done for it.
  "link noreferrer": click((url) => ({ href: url, target: "_blank", rel: "noreferrer" })),
  "link download": click((url) => ({ href: url, target: "_blank", download: "x" })),
  "window.open": (url) => window.open(url),
  "window.open noreferrer": (url) => window.open(url, "_blank", "noreferrer"),
  "location": popup((opened, url) => (opened.location = url)),
  "location by redirect": popup((opened, url) => (opened.location = location.origin + here("/redirect", url))),
  "location through a server here": popup((opened, url) => (opened.location = here(`${LOCAL}/redirect`, url))),
};

const NAMES = Object.keys(WAYS).map((name) => name.replaceAll(" ", "-"));

// Tries some of the ways; `base` ends with a slash. The errors are the browser's own: it may not do so.
const tryWays = (base, names) => {
  for (const [index, way] of Object.values(WAYS).entries()) {
    if (!names.includes(NAMES[index])) continue;
    try {
      Promise.resolve(way(base + NAMES[index])).catch(() => {});
    } catch {}
  }
};
