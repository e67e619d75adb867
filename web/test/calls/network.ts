// The network namespace that scripts/calls.sh makes: loopback only, and rules of its own.
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";

/** Whether the network is the tests' own: what they do to it concerns nobody else. */
export const ownNetwork = process.env.HALLEY_OWN_NET === "1";

/** Ports of relays; sockets that ask for none get lower ones, so that a rule can tell them apart. A rule takes no 65535. */
const [low, high] = [40_000, 65_534];
export const relayPorts = { HALLEY_ALL_TURN_MIN_PORT: String(low), HALLEY_ALL_TURN_MAX_PORT: String(high) };

/** An address of this machine that isn't loopback's, as long as addAddress() has made it. */
export const address = "10.7.7.7";
const link = (...args: string[]) => execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });

/** Two ends of a wire, of which one has the address: browsers ask no loopback for ways to others. */
export function addAddress(): void {
  if (!ownNetwork) throw new Error("the network isn't ours");
  link("link", "add", "near", "type", "veth", "peer", "name", "far");
  link("address", "add", `${address}/24`, "dev", "near");
  for (const end of ["near", "far"]) {
    // Else another address comes after two seconds, and browsers begin all anew.
    writeFileSync(`/proc/sys/net/ipv6/conf/${end}/disable_ipv6`, "1");
    link("link", "set", end, "up");
  }
}

export function dropAddress(): void {
  link("link", "del", "near");
}

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
