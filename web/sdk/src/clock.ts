/**
 * An estimate of the server's clock. Each answer that tells the server's time is a sample, good to half of its
 * round trip; the one with the shortest round trip of the last few is believed (as NTP does, RFC 5905 section 10).
 */
export class ServerClock {
  #samples: { offset: number; rtt: number }[] = [];
  #offset = 0;
  #error = Infinity;

  /** Server's time minus ours in milliseconds. */
  get offset(): number {
    return this.#offset;
  }

  /** How far the offset may be wrong, in milliseconds; Infinity before the first sample. */
  get error(): number {
    return this.#error;
  }

  /** The server's time now, in milliseconds since 1970. */
  now(): number {
    return Date.now() + this.#offset;
  }

  /** Takes a sample: asked at sent, answered at received (both Date.now()), when the server's clock was serverTime. */
  sample(sent: number, received: number, serverTime: number): void {
    const rtt = Math.max(0, received - sent);
    this.#samples.push({ offset: serverTime - (sent + received) / 2, rtt });
    // Few, so that a clock that was set or drifts is followed soon.
    if (this.#samples.length > 8) this.#samples.shift();
    const best = this.#samples.reduce((a, b) => (b.rtt <= a.rtt ? b : a));
    this.#offset = best.offset;
    this.#error = best.rtt / 2;
  }
}
