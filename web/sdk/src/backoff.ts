export interface BackoffOptions {
  /** Bound of the first wait in milliseconds; it doubles with each try. */
  base: number;
  /** The highest bound in milliseconds. */
  max: number;
}

export const defaultBackoff: BackoffOptions = { base: 500, max: 30_000 };

/**
 * Returns how long to wait before try number attempt (0, 1, 2 …), in milliseconds: a random time below
 * min(max, base · 2^attempt), "full jitter", so that clients which lost one server don't come back as one. What
 * the server asked for (retryAfter) is waited in any case, the random time on top of it.
 */
export function backoff(attempt: number, options: BackoffOptions = defaultBackoff, retryAfter = 0, random: () => number = Math.random): number {
  // 2^31 is beyond any max; a larger exponent would become Infinity · 0 somewhere.
  const bound = Math.min(options.max, options.base * 2 ** Math.min(attempt, 31));
  return Math.round(retryAfter + random() * bound);
}
