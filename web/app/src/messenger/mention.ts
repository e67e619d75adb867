/** The @ that is being typed before the caret, if one is. */
export function mentionAt(text: string, caret: number): { start: number; query: string } | undefined {
  const before = text.slice(0, caret);
  const start = before.lastIndexOf("@");
  if (start < 0 || (start > 0 && /[\w.]/.test(before[start - 1]!))) return undefined;
  const query = before.slice(start + 1);
  return /[\n]/.test(query) || query.length > 30 || query.includes("  ") || query.endsWith(" ") ? undefined : { start, query };
}
