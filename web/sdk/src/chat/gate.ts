/** Lets so many run at once; the others wait for their turn. */
export class Gate {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(free: number) {
    this.#free = free;
  }

  async run<T>(task: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }
}

/** Those who wait for their time, and can be woken together: when a session begins, or all is over. */
export class Sleepers {
  readonly #all = new Set<() => void>();

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#all.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      this.#all.add(wake);
    });
  }

  wake(): void {
    for (const wake of [...this.#all]) wake();
  }
}
