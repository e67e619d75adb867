import type { Line } from "./line.ts";

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
 * Asks for STUN and TURN servers with credentials. Without an answer a call may still be possible between neighbours.
 */
export async function iceServers(line: Line, now: () => number): Promise<Servers> {
  try {
    const list = await line.request("ice.servers", {});
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
      renewAt: list.renew_at ? now() + Math.max(waitFor(list.renew_at, list.expires_at ?? 0, now()), 60_000) : 0,
      turn: list.turn ?? false,
      relayOnly,
    };
  } catch {
    return { ...none, renewAt: now() + 60_000 };
  }
}

/** How long until new ones are to be asked for: 80 % of their life by the server's own times, for this device's clock may be wrong; sooner where it says so. */
function waitFor(renewAt: number, expiresAt: number, now: number): number {
  const left = renewAt - now;
  const most = (expiresAt - renewAt) * 4;
  return most > 0 && (left <= 0 || left > most) ? most : left;
}
