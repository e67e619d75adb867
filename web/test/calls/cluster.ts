// A cluster of two of each role, as `make up` starts it, in a folder of its own and on the usual ports: in a network of its own.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Halley } from "../browser/stack.ts";

const scripts = new URL("../../../scripts/", import.meta.url).pathname;

export type Node = `${"comet" | "logic" | "router" | "job"}${1 | 2}`;

export interface Cluster extends Halley {
  /** As a machine that fails does it. */
  kill(node: Node): void;
  /** Starts what doesn't run. */
  mend(): void;
  /** How many requests of a method a logic has served. */
  served(logic: 1 | 2, method: string): Promise<number>;
}

/** The comet whose WebSocket has this address. */
export function cometAt(url: string): Node {
  return new URL(url).port === "3102" ? "comet1" : "comet2";
}

export async function startCluster(): Promise<Cluster> {
  const home = mkdtempSync(join(tmpdir(), "halley-cluster-"));
  const env = {
    ...process.env,
    HALLEY_CLUSTER_HOME: home,
    // A node that died is known to be dead sooner than it needs to be.
    HALLEY_ROUTER_SETTLE_DELAY: "1s",
  };
  const run = (script: string) => execFileSync(join(scripts, script), { env, stdio: ["ignore", "ignore", "inherit"] });
  const stop = async () => {
    run("down.sh");
    rmSync(home, { recursive: true });
  };
  try {
    run("up.sh");
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url: "http://127.0.0.1:3111",
    apiKey: () => readFileSync(join(home, "data", "api-key"), "utf8").trim(),
    kill: (node) => process.kill(Number(readFileSync(join(home, node, "pid"), "utf8")), "SIGKILL"),
    mend: () => run("up.sh"),
    served: async (logic, method) => {
      const text = await fetch(`http://127.0.0.1:${logic === 1 ? 3118 : 3218}/metrics`).then((r) => r.text());
      const lines = text.split("\n").filter((l) => l.startsWith("halley_logic_requests_total{") && l.includes(`method="${method}"`));
      return lines.reduce((sum, l) => sum + Number(l.split(" ").at(-1)), 0);
    },
    stop,
  };
}
