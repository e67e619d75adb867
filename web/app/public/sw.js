// Lets the messenger open without a connection: its page and the files that the page names are kept as they were last served. What was
// said isn't kept here; that is the SDK's, in IndexedDB.
const name = "halley";
/** Longer than this nobody waits for a page that is here. */
const patience = 3000;
const page = new URL("./", self.registration.scope).href;
const assets = new URL("./assets/", self.registration.scope).href;

self.addEventListener("install", (event) => event.waitUntil(fetchPage().then(() => self.skipWaiting())));
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = request.url.replace(/[?#].*/, "");
  if (request.method !== "GET") return;
  if (request.mode === "navigate" && url === page) event.respondWith(servePage());
  else if (url.startsWith(assets) || url === new URL("./icon.svg", page).href) event.respondWith(serveFile(request));
});

/** The page as it is now; as it was, if that takes too long. */
async function servePage() {
  const kept = await (await caches.open(name)).match(page);
  const fresh = fetchPage();
  if (!kept) return fresh;
  fresh.catch(() => {});
  const late = new Promise((resolve) => setTimeout(() => resolve(kept), patience));
  return Promise.race([fresh.catch(() => kept), late]);
}

/** Fetches the page, and keeps it. */
async function fetchPage() {
  const response = await fetch(page, { cache: "no-cache" });
  if (response.ok) {
    await keep(response.clone()).catch(() => {
      // A file wasn't there, or the disk is full: what was kept before stays.
    });
  }
  return response;
}

/** Keeps a page with the files that it names, once all of them are there. */
async function keep(response) {
  const text = await response.clone().text();
  const cache = await caches.open(name);
  const files = [...text.matchAll(/(?:src|href)="(?:\.\/)?([^":]+)"/g)].map((match) => new URL(match[1], page).href);
  const have = new Set((await cache.keys()).map((request) => request.url));
  await cache.addAll(files.filter((file) => !have.has(file) || !file.startsWith(assets)));
  const old = await cache.match(page);
  await cache.put(page, response);
  if (old && (await old.text()) !== text) {
    // What earlier pages named, and what they fetched when they wanted it.
    for (const url of have) if (url !== page && !files.includes(url)) await cache.delete(url);
  }
}

/** Files below assets never change under the same name. */
async function serveFile(request) {
  const cache = await caches.open(name);
  const kept = await cache.match(request);
  if (kept) return kept;
  const response = await fetch(request);
  if (response.ok) await cache.put(request, response.clone());
  return response;
}
