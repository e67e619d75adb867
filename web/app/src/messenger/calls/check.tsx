import type { RelayReport, RelayResult } from "@halley-im/sdk/call";
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { t } from "../../i18n/index.ts";
import { Dialog } from "../parts/dialog.tsx";
import { useMessenger } from "../ui.ts";

/** Tries every relay that the server names, from here, and says in words what is wrong. */
export function CheckCalls() {
  const m = useMessenger();
  const report = useSignal<RelayReport | undefined>(undefined);
  const running = useSignal(false);
  const run = async () => {
    if (running.peek()) return;
    running.value = true;
    report.value = undefined;
    report.value = await m.calls.check();
    running.value = false;
  };
  useEffect(() => void run(), []);
  const { problem, results } = report.value ?? {};
  return (
    <Dialog
      title={t("relayTest")}
      onSubmit={() => void run()}
      foot={
        <button type="submit" class="primary" disabled={running.value}>
          {t("relayAgain")}
        </button>
      }
    >
      <p class={`relay-verdict${problem && problem !== "none" ? " bad" : ""}`} role="status" data-problem={problem}>
        {problem ? t(`relay_${problem}`) : t("relayRunning")}
      </p>
      {results && results.length > 0 && (
        <ul class="relays">
          {results.map((r) => (
            <li key={r.url} data-way={r.way} data-fault={r.fault ?? ""}>
              <strong>{r.way.toUpperCase()}</strong>
              <span class="grow">
                <span class="mono">{r.url}</span>
                <small class={r.fault ? "bad" : "muted"}>{resultText(r)}</small>
              </span>
            </li>
          ))}
        </ul>
      )}
      <p class="muted">{t("relayWhat")}</p>
    </Dialog>
  );
}

function resultText({ fault, detail, roundTrip }: RelayResult): string {
  if (!fault) return t("relayWorks", { ms: roundTrip });
  const text = t(`relayFault_${fault}`);
  return detail ? `${text} (${detail})` : text;
}
