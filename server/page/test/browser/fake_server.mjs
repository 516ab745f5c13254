// A server as the page sees one, over the sample: the same routes and headers as server/http, and switches for what goes wrong.
import {readFileSync} from 'node:fs';
import http from 'node:http';
import path from 'node:path';

const types = {'.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml'};
export const csp = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** `switches`: {streams: false answers watches with 503; needToken: a token that every call must bring}. Gives {url, stop, requests}. */
export async function startFakeServer({data, dist, port = 0, switches = {}}) {
  const requests = [];
  const open = new Set();
  const server = http.createServer(async (request, response) => {
    const url = new URL(request.url, 'http://x');
    let body = '';
    for await (const piece of request) body += piece;
    requests.push({method: request.method, path: url.pathname, body, authorization: request.headers.authorization ?? ''});
    const send = (status, value) => {
      response.writeHead(status, {'content-type': 'application/json'});
      response.end(JSON.stringify(value));
    };
    const fail = (status, message, reason) => send(status, {code: 5, message, details: [{'@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason, domain: 'uniquanf'}]});
    if (!url.pathname.startsWith('/v1/')) {
      const file = url.pathname === '/' ? '/index.html' : url.pathname;
      try {
        const bytes = readFileSync(path.join(dist, path.normalize(file)));
        response.writeHead(200, {'content-type': types[path.extname(file)] ?? 'application/octet-stream', 'content-security-policy': csp, 'x-content-type-options': 'nosniff'});
        response.end(bytes);
      } catch { response.writeHead(404).end(); }
      return;
    }
    if (switches.needToken && request.headers.authorization !== `Bearer ${switches.needToken}`) return fail(401, 'who are you? give a token', 'UNAUTHENTICATED');
    const match = /^\/v1\/jobs\/([^/:]+)(?:\/(tasks|metrics)|:(\w+))?$/.exec(url.pathname);
    if (url.pathname === '/v1/server') return send(200, data.server);
    if (url.pathname === '/v1/workers') return send(200, {workers: data.workers});
    if (url.pathname === '/v1/jobs' && request.method === 'POST') {
      const wish = JSON.parse(body), id = url.searchParams.get('job_id');
      if (!wish.spec.model_uri) return send(400, {code: 3, message: 'model_uri: is required', details: [{reason: 'INVALID_SPEC'}, {fieldViolations: [{field: 'job.spec.model_uri', description: 'is required'}]}]});
      return send(200, {...data.jobs[0], ...wish, name: id ? `jobs/${id}` : data.jobs[0].name});
    }
    if (url.pathname === '/v1/jobs') {
      const filter = url.searchParams.get('filter') ?? '';
      const state = /^state=([A-Z]+)$/.exec(filter);
      if (filter && !state) return fail(400, `filter: ${filter} is not understood`, 'INVALID_FILTER');
      return send(200, {jobs: data.jobs.filter((job) => !state || job.state === state[1])});
    }
    const job = match && data.jobs.find((one) => one.name === `jobs/${decodeURIComponent(match[1])}`);
    if (!job) return fail(404, `there is no job ${match?.[1] ?? ''}`, 'JOB_NOT_FOUND');
    if (match[2] === 'tasks') return send(200, {tasks: data.tasksOf(job)});
    if (match[2] === 'metrics') return send(200, data.metrics(job));
    if (match[3] === 'watch') {
      if (switches.streams === false) return fail(503, 'too many streams; poll', 'TOO_MANY_STREAMS');
      response.writeHead(200, {'content-type': 'text/event-stream', 'cache-control': 'no-store'});
      response.write(`id: ${job.version}\ndata: ${JSON.stringify({job, tasks: data.tasksOf(job)})}\n\n`);
      if (['SUCCEEDED', 'FAILED', 'CANCELLED'].includes(job.state)) { response.end(); return; }
      const timer = setInterval(() => response.write(`: still here\n\n`), 1000);
      open.add(response);
      request.on('close', () => clearInterval(timer));
      return;
    }
    if (match[3] === 'cancel') { job.state = 'CANCELLING'; return send(200, job); }
    if (match[3]) return send(200, job);
    return send(200, job);
  });
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    port: server.address().port,
    requests,
    stop: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }),
  };
}
