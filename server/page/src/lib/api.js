// Calls of the server's HTTP API (the JSON of the protos in proto/uniquanf/v1), and whether the server answers.
import {observable} from './state.js';

const tokenKey = 'uniquanf-token';

/** The bearer token. It is kept while the tab is open, and nowhere else. */
export const token = observable(readToken());

function readToken() {
  try { return sessionStorage.getItem(tokenKey) ?? ''; } catch { return ''; }
}

export function setToken(value) {
  token.set(value);
  try {
    if (value) sessionStorage.setItem(tokenKey, value); else sessionStorage.removeItem(tokenKey);
  } catch { /* it holds for this page */ }
}

/** Since when (milliseconds) the server has not answered; null: it does. */
export const silentSince = observable(null);
let lastAnswer = Date.now();

export function noteAnswer() {
  lastAnswer = Date.now();
  silentSince.set(null);
}
export function noteSilence() {
  if (silentSince.get() === null) silentSince.set(Date.now());
}

/** What the server refused, or that it did not answer (code 0). */
export class ApiError extends Error {
  constructor(message, {code = 0, reason = '', violations = []} = {}) {
    super(message);
    this.code = code;  // the HTTP status
    this.reason = reason;  // the stable word of google.rpc.ErrorInfo
    this.violations = violations;  // {field, description} of google.rpc.BadRequest
  }
}

async function errorOf(response) {
  let status = {};
  try {
    const json = await response.json();
    status = json.error && typeof json.error === 'object' ? json.error : json;
  } catch { /* a proxy's page */ }
  const details = Array.isArray(status.details) ? status.details : [];
  const message = status.message || `the server answered ${response.status} ${response.statusText}`;
  return new ApiError(message, {
    code: response.status,
    reason: details.find((detail) => detail.reason)?.reason ?? '',
    violations: details.flatMap((detail) => detail.fieldViolations ?? detail.field_violations ?? []),
  });
}

function headers(more = {}) {
  const all = {accept: 'application/json', ...more};
  if (token.get()) all.authorization = `Bearer ${token.get()}`;
  return all;
}

/** A response with a good status. Throws ApiError; a gateway's 502 and 504, and no answer in `timeout` ms, count as silence. */
async function request(path, {method = 'GET', body, signal, timeout = 8000, accept} = {}) {
  const limit = new AbortController();
  const stop = () => limit.abort();
  signal?.addEventListener('abort', stop);
  const timer = setTimeout(stop, timeout);
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: headers({...(body === undefined ? {} : {'content-type': 'application/json'}), ...(accept ?? {})}),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: limit.signal,
      cache: 'no-store',
      credentials: 'omit',
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    noteSilence();
    throw new ApiError('no answer from the server', {code: 0});
  } finally {
    clearTimeout(timer);
    if (!accept) signal?.removeEventListener('abort', stop);
  }
  if (response.status === 502 || response.status === 504) {
    noteSilence();
    throw new ApiError('no answer from the server', {code: 0});
  }
  noteAnswer();
  if (!response.ok) throw await errorOf(response);
  return response;
}

export async function call(path, options) {
  const response = await request(path, options);
  try {
    return await response.json();
  } catch {
    throw new ApiError('the server answered something that is no JSON; is this its address?', {code: response.status});
  }
}

/** A job's resource name from what an address holds: "x", "jobs/x" or "tenants/t/jobs/x". */
export function jobName(text) {
  return text.includes('/') ? text : `jobs/${text}`;
}

/** Where the page shows a job. */
export function jobHref(name) {
  return `#/${String(name).split('/').map(encodeURIComponent).join('/')}`;
}

/** Path of a resource: resourcePath('jobs/x', ':cancel'). */
export function resourcePath(name, rest = '') {
  return `/v1/${String(name).split('/').map(encodeURIComponent).join('/')}${rest}`;
}

/** Splits server-sent events: feed it text, it gives {id, event, data} of every complete one. */
export function eventParser() {
  let rest = '', id = '', event = '', data = [];
  return (text) => {
    rest += text;
    const found = [];
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (data.length > 0) found.push({id, event: event || 'message', data: data.join('\n')});
        event = ''; data = [];
        continue;
      }
      if (line.startsWith(':')) continue;
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'id') id = value;
      else if (field === 'event') event = value;
      else if (field === 'data') data.push(value);
    }
    return found;
  };
}

/** The events of a stream, until it ends. fetch rather than EventSource, which cannot carry a token or tell a 503 from an outage. */
export async function* stream(path, {signal, lastId} = {}) {
  const response = await request(path, {
    signal, accept: {accept: 'text/event-stream', ...(lastId ? {'last-event-id': lastId} : {})},
  });
  if (response.status === 204 || !response.body) return;  // nothing came after what was seen
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const parse = eventParser();
  try {
    for (;;) {
      let piece;
      try {
        piece = await reader.read();
      } catch (error) {
        if (signal?.aborted) return;
        noteSilence();
        throw new ApiError('no answer from the server', {code: 0});
      }
      if (piece.done) return;
      noteAnswer();
      yield* parse(decoder.decode(piece.value, {stream: true}));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Asks the server for itself where nothing was heard of it for `period` ms, so that an outage shows on every page. */
export function startPulse(period = 3000) {
  const beat = async () => {
    if (!document.hidden && Date.now() - lastAnswer >= period) {
      await call('/v1/server', {timeout: 3000}).catch(() => {});
    }
    setTimeout(beat, silentSince.get() === null ? 1000 : 1500);
  };
  beat();
}

const wait = (milliseconds, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, milliseconds);
  signal?.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, {once: true});
});

/** Every page of a list. */
export async function listAll(path, member, {signal, limit = 100} = {}) {
  const all = [];
  let pageToken = '';
  for (let page = 0; page < limit; ++page) {
    const join = path.includes('?') ? '&' : '?';
    const reply = await call(pageToken ? `${path}${join}page_token=${encodeURIComponent(pageToken)}` : path, {signal});
    all.push(...(reply[member] ?? []));
    pageToken = reply.next_page_token;
    if (!pageToken) break;
  }
  return all;
}

/**
 * Calls `ask` at once and every `period` ms after its answer, until the signal ends it; not while nobody sees the page.
 * `ask` handles its own errors.
 */
export async function poll(ask, period, signal) {
  while (!signal.aborted) {
    if (!document.hidden) await ask();
    await wait(period, signal);
  }
}

export const finalStates = ['SUCCEEDED', 'FAILED', 'CANCELLED'];

/** Resolves when the page is seen. */
const seen = (signal) => new Promise((resolve) => {
  const look = () => {
    if (document.hidden && !signal.aborted) return;
    document.removeEventListener('visibilitychange', look);
    resolve();
  };
  document.addEventListener('visibilitychange', look);
  signal.addEventListener('abort', look, {once: true});
  look();
});

/** A signal that also fires when nobody has seen the page for 10 s: a browser has six connections for all its tabs. */
function whileSeen(signal) {
  const abort = new AbortController();
  let timer = 0;
  const look = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(() => abort.abort(), 10000);
  };
  const end = () => abort.abort();
  document.addEventListener('visibilitychange', look);
  signal.addEventListener('abort', end);
  look();
  return {signal: abort.signal, stop: () => {
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', look);
    signal.removeEventListener('abort', end);
  }};
}

/**
 * Follows a job: `update({job, tasks})` with tasks that are new or changed; `mode('stream' | 'poll')`; `fail(error)` for what the
 * server refuses. A stream where the server has one free, else (503, 429) polling, with another try for a stream every 30 s.
 */
export async function followJob(name, {update, mode, fail, signal}) {
  const path = resourcePath(name);
  let version = '', pollUntil = 0;
  const pollOnce = async () => {
    const job = await call(path, {signal});
    const tasks = await listAll(`${path}/tasks?page_size=1000`, 'tasks', {signal});
    update({job, tasks});
    fail(null);
    return job;
  };
  const streamOnce = async () => {
    const part = whileSeen(signal);
    let state = '';
    try {
      for await (const event of stream(`${path}:watch`, {signal: part.signal, lastId: version})) {
        if (event.event === 'error') throw new ApiError(JSON.parse(event.data).message ?? 'the stream ended', {code: 503});
        const reply = event.event === 'message' ? JSON.parse(event.data) : {};
        if (!reply.job) continue;  // a heartbeat
        fail(null);
        mode('stream');
        if (event.id) version = event.id;
        state = reply.job.state;
        update({job: reply.job, tasks: reply.tasks ?? []});
      }
    } catch (error) {
      if (!part.signal.aborted) throw error;
    } finally {
      part.stop();
    }
    return state;
  };
  while (!signal.aborted) {
    await seen(signal);
    const polling = Date.now() < pollUntil;
    try {
      if (polling) {
        mode('poll');
        const job = await pollOnce();
        await wait(finalStates.includes(job.state) ? 10000 : 2000, signal);
      } else if (finalStates.includes(await streamOnce())) {
        // It may be retried; then it is no longer final.
        while (!signal.aborted) {
          await wait(5000, signal);
          await seen(signal);
          if (signal.aborted || !finalStates.includes((await pollOnce()).state)) break;
        }
      } else {
        await wait(500, signal);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.code === 0) {
        version = '';  // the next answer says everything anew
        await wait(1000, signal);
      } else if ((error.code === 503 || error.code === 429) && !polling) {
        pollUntil = Date.now() + 30000;
      } else {
        fail(error);
        await wait([401, 403, 404].includes(error.code) ? 5000 : 2000, signal);
      }
    }
  }
}
