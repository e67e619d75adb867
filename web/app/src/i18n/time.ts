import { computed } from "@preact/signals";
import { locale, t } from "./index.ts";

const formats = computed(() => {
  const f = (options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat(locale.value, options);
  return {
    clock: f({ hour: "2-digit", minute: "2-digit" }),
    weekday: f({ weekday: "long" }),
    shortWeekday: f({ weekday: "short" }),
    day: f({ month: "long", day: "numeric", weekday: "long" }),
    date: f({ year: "numeric", month: "long", day: "numeric" }),
    short: f({ year: "2-digit", month: "2-digit", day: "2-digit" }),
    exact: f({ dateStyle: "full", timeStyle: "medium" }),
  };
});

const dayMs = 86_400_000;

/** Whole days between that day and today. */
function daysAgo(at: number, now: number): number {
  const midnight = (ms: number) => new Date(ms).setHours(0, 0, 0, 0);
  return Math.round((midnight(now) - midnight(at)) / dayMs);
}

/** 14:05 */
export function clock(at: number): string {
  return formats.value.clock.format(at);
}

/** When, as briefly as a list wants it: 14:05, yesterday, Tue, 21/11/26. */
export function brief(at: number, now = Date.now()): string {
  if (at === 0) return "";
  const days = daysAgo(at, now);
  if (days <= 0) return clock(at);
  if (days === 1) return t("yesterday");
  return days < 7 ? formats.value.shortWeekday.format(at) : formats.value.short.format(at);
}

/** The day as a line between messages. */
export function dayName(at: number, now = Date.now()): string {
  const days = daysAgo(at, now);
  if (days <= 0) return t("today");
  if (days === 1) return t("yesterday");
  if (days < 7) return formats.value.weekday.format(at);
  return days < 180 ? formats.value.day.format(at) : formats.value.date.format(at);
}

/** A time from now on or long ago: with the day where it isn't today. */
export function when(at: number, now = Date.now()): string {
  return daysAgo(at, now) === 0 ? clock(at) : `${brief(at, now) === clock(at) ? formats.value.short.format(at) : brief(at, now)} ${clock(at)}`;
}

/** To the second, for who wants to know exactly. */
export function exact(at: number): string {
  return formats.value.exact.format(at);
}

/** How long: 3:05, 1:02:09. */
export function length(ms: number): string {
  const all = Math.max(0, Math.floor(ms / 1000));
  const two = (n: number) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}
