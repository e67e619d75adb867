// The network namespace that scripts/calls.sh makes: loopback only, and rules of its own.
import { execFileSync } from "node:child_process";

/** Whether the network is the tests' own: what they do to it concerns nobody else. */
export const ownNetwork = process.env.HALLEY_OWN_NET === "1";

/** Ports of relays; sockets that ask for none get lower ones, so that a rule can tell them apart. A rule takes no 65535. */
const [low, high] = [40_000, 65_534];
export const relayPorts = { HALLEY_ALL_TURN_MIN_PORT: String(low), HALLEY_ALL_TURN_MAX_PORT: String(high) };

const rule = (...args: string[]) => execFileSync("ip", ["rule", ...args], { stdio: ["ignore", "ignore", "pipe"] });
let blocked = false;

/** From now on nobody but relays sends UDP, as behind a firewall: relays aren't behind it. */
export function blockUDP(): void {
  if (!ownNetwork) throw new Error("the network isn't ours");
  if (blocked) return;
  rule("add", "pref", "10", "ipproto", "udp", "sport", `${low}-${high}`, "lookup", "local");
  rule("add", "pref", "11", "ipproto", "udp", "prohibit");
  blocked = true;
}

export function openUDP(): void {
  if (!blocked) return;
  blocked = false;
  rule("del", "pref", "11");
  rule("del", "pref", "10");
}
