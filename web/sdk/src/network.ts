/**
 * Tells when the network, or the page, came back (wake) and when there is reason to doubt the connection (doubt).
 * Where there are no such events (Node) it does nothing. Returns what ends it.
 */
export function watchNetwork(wake: () => void, doubt: () => void): () => void {
  const target = globalThis as Partial<Pick<typeof globalThis, "addEventListener" | "removeEventListener" | "document">>;
  if (!target.addEventListener || !target.removeEventListener) return () => {};
  // Timers of a hidden page or a sleeping machine run late: look at once when somebody looks at it again.
  const seen = () => {
    if (target.document?.visibilityState === "visible") wake();
  };
  target.addEventListener("online", wake);
  target.addEventListener("offline", doubt);
  target.document?.addEventListener("visibilitychange", seen);
  return () => {
    target.removeEventListener?.("online", wake);
    target.removeEventListener?.("offline", doubt);
    target.document?.removeEventListener("visibilitychange", seen);
  };
}
