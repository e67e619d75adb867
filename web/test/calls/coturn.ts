// A coturn with the configuration that comes with Halley, opened for loopback.
import { execFileSync } from "node:child_process";
import { join } from "node:path";

const script = new URL("../../../scripts/servers.sh", import.meta.url).pathname;
const servers = (...args: string[]) => execFileSync(script, args, { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });

/** Starts it in a folder, and returns what a Halley is told of it. */
export function startCoturn(dir: string): Record<string, string> {
  const at = join(dir, "servers");
  servers("start", at, "coturn");
  const set = new Map([...servers("env", at, "coturn").matchAll(/(HALLEY_\w+)=(\S+)/g)].map((m) => [m[1], m[2] ?? ""]));
  const address = set.get("HALLEY_TEST_TURN") ?? "";
  return {
    HALLEY_LOGIC_TURN_STUN_URLS: `stun:${address}`,
    HALLEY_LOGIC_TURN_URLS: `turn:${address}?transport=udp,turn:${address}?transport=tcp`,
    HALLEY_LOGIC_TURN_SECRET: set.get("HALLEY_TEST_TURN_SECRET") ?? "",
  };
}

export function stopCoturn(dir: string): void {
  servers("stop", join(dir, "servers"), "coturn");
}
