// Ringing and ring-back, made here: no files, and the same everywhere.
let context: AudioContext | undefined;

interface Pattern {
  /** Each note: when it begins in seconds, how high, how long. */
  notes: readonly (readonly [at: number, hertz: number, seconds: number])[];
  every: number;
  loud: number;
}

const patterns: Record<"incoming" | "waiting", Pattern> = {
  // The first notes of something that rises, twice.
  incoming: { notes: [[0, 523, 0.16], [0.18, 659, 0.16], [0.36, 784, 0.3], [0.9, 523, 0.16], [1.08, 659, 0.16], [1.26, 1047, 0.36]], every: 2.6, loud: 0.22 },
  waiting: { notes: [[0, 425, 1]], every: 4, loud: 0.08 },
};

/**
 * Plays until the returned function is called. Pages that nobody has touched yet may not make a sound: it begins with the first touch then.
 * Of a browser's tabs one plays: whoever gets the lock.
 */
export function play(kind: keyof typeof patterns): () => void {
  const stop = new AbortController();
  const { signal } = stop;
  void begin(kind, signal).catch(() => {
    // No sound on this device; the ringing is to be seen.
  });
  return () => stop.abort();
}

async function begin(kind: keyof typeof patterns, signal: AbortSignal): Promise<void> {
  if (!("AudioContext" in globalThis)) return;
  if (navigator.userActivation && !navigator.userActivation.hasBeenActive) {
    await new Promise<void>((resolve) => {
      for (const name of ["pointerdown", "keydown"]) addEventListener(name, () => resolve(), { signal });
      signal.addEventListener("abort", () => resolve());
    });
  }
  if (signal.aborted) return;
  const audio = (context ??= new AudioContext());
  if (audio.state !== "running") await audio.resume();
  if (signal.aborted) return;
  if (kind === "incoming" && navigator.locks) {
    await navigator.locks.request("halley/ring", { signal }, () => sound(audio, patterns[kind], signal));
  } else await sound(audio, patterns[kind], signal);
}

function sound(audio: AudioContext, { notes, every, loud }: Pattern, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const out = audio.createGain();
    out.gain.value = loud;
    out.connect(audio.destination);
    const once = () => {
      for (const [at, hertz, seconds] of notes) {
        const note = audio.createOscillator();
        const shape = audio.createGain();
        const from = audio.currentTime + at + 0.02;
        note.type = "sine";
        note.frequency.value = hertz;
        // Without edges, which click.
        shape.gain.setValueAtTime(0, from);
        shape.gain.linearRampToValueAtTime(1, from + 0.02);
        shape.gain.setValueAtTime(1, from + seconds * 0.6);
        shape.gain.linearRampToValueAtTime(0, from + seconds);
        note.connect(shape).connect(out);
        note.start(from);
        note.stop(from + seconds);
      }
    };
    once();
    const timer = setInterval(once, every * 1000);
    const end = () => {
      clearInterval(timer);
      out.disconnect();
      resolve();
    };
    if (signal.aborted) end();
    else signal.addEventListener("abort", end);
  });
}
