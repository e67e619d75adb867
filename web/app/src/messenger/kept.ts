// Who is logged in outlives a reload, in this tab alone, so that two windows can be two people; who wants to stay logged in is kept for all
// tabs to come, until he logs out. The last name is remembered for the door.
import type { Credentials } from "../model/sdk.ts";

const key = "halley.messenger";
const nameKey = "halley.name";

/** Keeps who has come in; stay: for tabs to come, too. */
export function save(credentials: Credentials, stay = false): void {
  const text = JSON.stringify(credentials);
  sessionStorage.setItem(key, text);
  // A newer token takes the place of the older one.
  if (stay || read(localStorage)?.uid === credentials.uid) localStorage.setItem(key, text);
  if (credentials.name) localStorage.setItem(nameKey, credentials.name);
}

export function load(): Credentials | undefined {
  return read(sessionStorage) ?? read(localStorage);
}

/** He has left: another one who stays logged in does so. */
export function clear(uid: string): void {
  sessionStorage.removeItem(key);
  if (read(localStorage)?.uid === uid) localStorage.removeItem(key);
}

export function lastName(): string {
  return localStorage.getItem(nameKey) ?? "";
}

function read(storage: Storage): Credentials | undefined {
  try {
    const credentials = JSON.parse(storage.getItem(key) ?? "null") as Credentials | null;
    return typeof credentials?.uid === "string" ? credentials : undefined;
  } catch {
    return undefined;
  }
}
