import type { Peer } from "./peer.ts";

export interface Heard {
  /** Loudness by uid, one's own among them: 0 to 1. */
  levels: ReadonlyMap<string, number>;
  /** Who of the others speaks, or spoke last; empty: nobody has. */
  speaker: string;
}

/** Below it nobody speaks. */
const audible = 0.02;

/** Levels tells who is heard how loudly. */
export class Levels {
  #own = 0;
  #speaker = "";

  /** uid is one's own; muted: nothing of one is heard. */
  now(peers: ReadonlyMap<string, Peer>, uid: string, muted: boolean): Heard {
    const levels = new Map<string, number>();
    let [loudest, speaker] = [audible, ""];
    for (const [other, peer] of peers) {
      const level = peer.level;
      levels.set(other, level);
      if (level > loudest) [loudest, speaker] = [level, other];
    }
    // Who spoke last stays in view while nobody speaks.
    if (speaker) this.#speaker = speaker;
    else if (!peers.has(this.#speaker)) this.#speaker = "";
    // One's own has to be asked for: it is that of the moment before.
    const [any] = peers.values();
    if (muted) this.#own = 0;
    else void any?.ownLevel().then((level) => (this.#own = level));
    levels.set(uid, muted ? 0 : this.#own);
    return { levels, speaker: this.#speaker };
  }
}
