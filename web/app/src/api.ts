// Logic's HTTP API, as far as this page uses it.

export interface Endpoint {
  ws?: string;
  wss?: string;
}

export interface Login {
  tenant: string;
  uid: string;
  token: string;
  push_key?: string;
  endpoints?: Endpoint[];
}

export interface PushTarget {
  uids?: string[];
  rooms?: string[];
  all?: boolean;
}

/** What the API refused, or that it can't be reached (status 0). */
export class ApiError extends Error {
  override readonly name = "ApiError";
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** Logs in by name. Only where the operator opened that; elsewhere ApiError with status 403 or 404. */
export function logIn(name: string): Promise<Login> {
  return call("POST", "v1/demo/login", { name });
}

/** Where comets are, in the order in which to try them. */
export async function endpoints(): Promise<Endpoint[]> {
  const { endpoints } = await call<{ endpoints?: Endpoint[] }>("GET", "v1/endpoints");
  return endpoints ?? [];
}

/** A comet's URL: from the list, a later one for each further try, else the usual port beside this page. */
export async function cometUrl(attempt: number, first: Endpoint[]): Promise<string> {
  const secure = location.protocol === "https:";
  const list = attempt === 0 && first.length > 0 ? first : await endpoints().catch(() => first);
  const urls = list.map((e) => (secure ? e.wss : (e.ws ?? e.wss))).filter((url): url is string => Boolean(url)).map((url) => fromHere(url, location.hostname));
  return urls[attempt % (urls.length || 1)] ?? (secure ? `wss://${location.hostname}:3103/sub` : `ws://${location.hostname}:3102/sub`);
}

/** An address that only its own machine knows, as seen from a page that came from elsewhere: the comet of `halley all` is where its page is. */
export function fromHere(url: string, host: string): string {
  return own.test(host) ? url : url.replace(/^(wss?:\/\/)(127\.[\d.]+|\[::1\]|localhost)(?=[:/])/, (_, scheme: string) => scheme + host);
}

const own = /^(127\.[\d.]+|\[::1\]|localhost)$/;

/** Pushes a JSON body. Resolves when the push is accepted, which is before it arrives. */
export function push(key: string, target: PushTarget, op: number, json: unknown): Promise<{ id: string }> {
  return call("POST", "v1/push", { ...target, op, json }, { Authorization: `Bearer ${key}`, "Idempotency-Key": crypto.randomUUID() });
}

async function call<T>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? headers : { ...headers, "Content-Type": "application/json" },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(10_000),
    });
  } catch {
    throw new ApiError(0, "unavailable", "The server can’t be reached.");
  }
  // Errors are problem+json (RFC 9457) with a code; what stands in between may answer anything.
  const answer = (await response.json().catch(() => ({}))) as { code?: string; detail?: string; title?: string };
  if (!response.ok) {
    throw new ApiError(response.status, answer.code ?? "", answer.detail ?? answer.title ?? `The server answered ${response.status}.`);
  }
  return answer as T;
}
