// Who is logged in outlives a reload, in this tab alone, so that two windows can be two people; the last name is remembered
// for the door.
import type { Credentials } from "../model/sdk.ts";

const key = "halley.messenger";
const nameKey = "halley.name";

export function save(credentials: Credentials): void {
  sessionStorage.setItem(key, JSON.stringify(credentials));
  if (credentials.name) localStorage.setItem(nameKey, credentials.name);
}

export function load(): Credentials | undefined {
  const text = sessionStorage.getItem(key);
  return text ? (JSON.parse(text) as Credentials) : undefined;
}

export function clear(): void {
  sessionStorage.removeItem(key);
}

export function lastName(): string {
  return localStorage.getItem(nameKey) ?? "";
}
