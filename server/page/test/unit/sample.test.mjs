// The data that the browser's tests draw is what the API would send.
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import path from 'node:path';
import {test} from 'node:test';
import {sample} from '../browser/sample.mjs';

test('the sample is the JSON of the protos', (context) => {
  const {jobs, tasksOf, metricsOf, workers, server} = sample();
  const messages = {
    Job: jobs,
    Task: jobs.flatMap(tasksOf),
    WatchJobResponse: jobs.map((job) => ({job, tasks: tasksOf(job)})),
    JobMetrics: jobs.map((job) => ({version: job.version, tasks: metricsOf(job)})),
    ListJobsResponse: [{jobs}],
    Worker: workers,
    ServerInfo: [server],
  };
  const run = spawnSync('/usr/bin/python3', [path.join(import.meta.dirname, '../proto_check.py')], {input: JSON.stringify(messages), encoding: 'utf8'});
  if (run.error || run.status === 77) return context.skip('protoc or python3-protobuf is missing');
  assert.equal(run.status, 0, run.stderr);
});
