import { type Line, persist } from "./line.ts";

export interface Servers {
  config: RTCConfiguration;
  /** When to ask for new credentials, by this machine's clock; 0: never. */
  renewAt: number;
  /** Whether there is a TURN server: without one some pairs of networks can't talk. */
  turn: boolean;
  relayOnly: boolean;
}

const none: Servers = { config: { bundlePolicy: "max-bundle" }, renewAt: 0, turn: false, relayOnly: false };

/**
 * Asks for STUN and TURN servers with credentials, while going tells so: until there is an answer nobody knows whether addresses are to be kept
 * secret. Where the server has none to give a call may still be possible between neighbours.
 * Times of the server count from its own: 80 % of the life that it tells are the same on any clock.
 */
export async function iceServers(line: Line, now: () => number, going: () => boolean): Promise<Servers> {
  try {
    const list = await persist(() => line.request("ice.servers", {}), going);
    // A server without an address would make the browser refuse all of them.
    const named = (list.servers ?? []).filter(({ urls }) => urls?.length);
    const servers = named.map(({ urls = [], username, credential }) => ({
      urls,
      ...(username !== undefined && { username }),
      ...(credential !== undefined && { credential }),
    }));
    const relayOnly = list.relay_only ?? false;
    return {
      config: { iceServers: servers, iceTransportPolicy: relayOnly ? "relay" : "all", bundlePolicy: "max-bundle" },
      renewAt: list.renew_at ? now() + Math.max(60_000, renewIn(list.renew_at, list.expires_at ?? 0, now())) : 0,
      turn: list.turn ?? false,
      relayOnly,
    };
  } catch {
    return { ...none, renewAt: now() + 60_000 };
  }
}

/** The last fifth of the life that the server tells is after renewAt: so much four times over is left before it. */
function renewIn(renewAt: number, expiresAt: number, now: number): number {
  return expiresAt > renewAt ? 4 * (expiresAt - renewAt) : renewAt - now;
}
