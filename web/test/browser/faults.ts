import axe from "axe-core";
import type { Page } from "playwright-core";

/** What axe finds wrong with the page as it is, in short. */
export async function faults(page: Page): Promise<string[]> {
  // What fades in is at half its colour for a moment.
  await page.evaluate(() => Promise.all(document.getAnimations().map((a) => a.finished.catch(() => undefined))).then(() => undefined));
  await page.evaluate(axe.source);
  return page.evaluate(async () => {
    const { violations } = await (globalThis as unknown as { axe: typeof axe }).axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"] });
    return violations.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.target.join(" ")}: ${n.failureSummary?.split("\n").at(1)?.trim() ?? ""}`));
  });
}
