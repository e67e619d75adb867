// What outlives a reload of the page: in this tab alone, so that two windows can be two people.
import { roomName } from "../format.ts";
import type { Credentials } from "./playground.ts";

const key = "halley.playground";

export interface Kept {
  credentials: Credentials;
  rooms: string[];
}

export function save(credentials: Credentials, rooms: string[]): void {
  sessionStorage.setItem(key, JSON.stringify({ credentials, rooms } satisfies Kept));
}

export function load(): Kept | undefined {
  const text = sessionStorage.getItem(key);
  return text ? (JSON.parse(text) as Kept) : undefined;
}

export function clear(): void {
  sessionStorage.removeItem(key);
}

/** The room to be in first: the one that the address names (#chat://lobby), else the lobby. */
export function firstRoom(): string {
  let named = "";
  try {
    named = decodeURIComponent(location.hash.slice(1));
  } catch {
    // Half a percent sign: somebody's typing error.
  }
  return roomName(named.includes("://") ? named : "lobby");
}
