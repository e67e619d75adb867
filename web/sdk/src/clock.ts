/**
 * An estimate of the server's clock. An answer that tells the server's time bounds the offset of the two clocks:
 * the server looked at its clock after we asked and before we heard. All offsets between the closest bounds of the
 * last answers are possible; the one nearest to 0 is believed. The middle would be the usual guess (RFC 5905 section
 * 10), but it is wrong by half of what the server took after it looked at its clock, and for messages that is most of
 * the round trip; while machines that keep their time, or are the same one, really have offsets of about 0.
 */
export class ServerClock {
  #samples: { low: number; high: number }[] = [];
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
    this.#samples.push({ low: serverTime - Math.max(sent, received), high: serverTime - sent });
    // Few, so that a clock that drifts is followed.
    if (this.#samples.length > 8) this.#samples.shift();
    for (;;) {
      const low = Math.max(...this.#samples.map((s) => s.low));
      const high = Math.min(...this.#samples.map((s) => s.high));
      // One of the clocks was set: what was known before is void, the newest sample alone never is. Times are whole
      // milliseconds, so a gap of one means nothing.
      if (low > high + 1) {
        this.#samples.shift();
        continue;
      }
      this.#offset = Math.min(Math.max(0, low), Math.max(low, high));
      this.#error = Math.max(high - this.#offset, this.#offset - low);
      return;
    }
  }
}
