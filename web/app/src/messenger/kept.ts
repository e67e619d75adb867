// Who is logged in outlives a reload: in this tab, so that two tabs can be two people, and for new tabs the last one.
import type { Credentials } from "./login.tsx";

const key = "halley.messenger";

export function save(credentials: Credentials): void {
  const text = JSON.stringify(credentials);
  sessionStorage.setItem(key, text);
  localStorage.setItem(key, text);
}

export function load(): Credentials | undefined {
  // A name in the address is somebody else's tab: it begins at the door.
  const text = sessionStorage.getItem(key) ?? localStorage.getItem(key);
  if (!text) return undefined;
  const kept = JSON.parse(text) as Credentials;
  sessionStorage.setItem(key, text);
  return kept;
}

export function clear(): void {
  const mine = sessionStorage.getItem(key);
  sessionStorage.removeItem(key);
  if (localStorage.getItem(key) === mine) localStorage.removeItem(key);
}
