// A new job. Every setting of docs/SPEC.md is there; what is left empty takes its default.
import {useState} from 'preact/hooks';
import {Card, Notice, Refusal} from '../parts/basics.jsx';
import {call, jobHref} from '../lib/api.js';
import {fields, presets} from '../lib/settings.js';

const first = ['model_uri', 'calibration_uri', 'evaluation_uri', 'output_uri', 'bits', 'group_size', 'method'];

/** The request's spec from what was typed: {name: text}. Lists are JSON. Throws Error with a text for people. */
export function specFrom(typed) {
  const spec = {};
  for (const field of fields) {
    const text = (typed[field.name] ?? '').trim();
    if (text === '') continue;
    if (field.type === 'list') {
      let value = null;
      try { value = JSON.parse(text); } catch { /* said below */ }
      if (!Array.isArray(value)) throw new Error(`${field.name}: give a JSON list, such as [{"pattern": "*.down_proj", "bits": 5}]`);
      spec[field.name] = value;
    } else if (field.type === 'integer' || field.type === 'number') {
      if (!Number.isFinite(Number(text))) throw new Error(`${field.name}: ${text} is no number`);
      spec[field.name] = field.type === 'integer' ? text : Number(text);  // 64-bit integers are strings in protobuf's JSON
    } else {
      spec[field.name] = field.type === 'word' ? text.toUpperCase() : text;
    }
  }
  return spec;
}

function Field({field, value, onValue}) {
  const id = `field-${field.name}`;
  const standard = field.type === 'list' || field.value === '' ? '' : String(field.value);
  return (
    <div class="field">
      <label for={id}><code>{field.name}</code>{field.required && field.name === 'model_uri' && ' (required)'}</label>
      {field.type === 'word' ?
        <select id={id} value={value} onChange={(event) => onValue(event.currentTarget.value)}>
          <option value="">{standard} (default)</option>
          {field.words.filter((word) => word !== field.value).map((word) => <option key={word} value={word}>{word}</option>)}
        </select> :
        <input id={id} value={value} placeholder={standard} spellcheck={false} autocomplete="off"
               inputMode={field.type === 'integer' || field.type === 'number' ? 'decimal' : undefined} onInput={(event) => onValue(event.currentTarget.value)} />}
      <small>{field.help.length > 140 ? `${field.help.slice(0, field.help.slice(0, 140).lastIndexOf(' '))} …` : field.help}</small>
    </div>
  );
}

const jobFields = [
  ['job_id', 'Name', 'letters a to z, digits, -; empty: the server chooses'],
  ['tenant', 'Tenant', 'default'],
  ['priority', 'Priority', '-100 to 100; higher runs earlier'],
  ['device', 'Device', 'cpu, cuda, or empty for any'],
  ['labels', 'Labels', 'KEY=VALUE, with commas between'],
];

export function Submit() {
  const [typed, setTyped] = useState({});
  const [job, setJob] = useState({});
  const [error, setError] = useState(null);
  const [done, setDone] = useState('');
  const [busy, setBusy] = useState(false);
  const set = (name) => (value) => { setTyped({...typed, [name]: value}); setDone(''); };
  const send = async (validateOnly) => {
    setBusy(true);
    setDone('');
    try {
      const labels = Object.fromEntries((job.labels ?? '').split(',').map((pair) => pair.trim()).filter(Boolean).map((pair) => {
        const at = pair.indexOf('=');
        if (at < 1) throw new Error(`labels: ${pair} is no KEY=VALUE`);
        return [pair.slice(0, at), pair.slice(at + 1)];
      }));
      const wish = {spec: specFrom(typed)};
      if (typed.preset) wish.spec.preset = typed.preset.toUpperCase();
      if (job.tenant) wish.tenant = job.tenant;
      if (job.device) wish.device = job.device;
      if (job.priority) wish.priority = Number(job.priority);
      if (Object.keys(labels).length > 0) wish.labels = labels;
      const query = new URLSearchParams();
      if (job.job_id) query.set('job_id', job.job_id);
      if (validateOnly) query.set('validate_only', 'true');
      // The server may read the model's and the tokens' headers first.
      const reply = await call(`/v1/jobs${query.size > 0 ? `?${query}` : ''}`, {method: 'POST', body: wish, timeout: 30000});
      setError(null);
      if (validateOnly) setDone(['The job is valid; nothing was created.', ...(reply.not_checked ?? [])].join(' '));
      else location.hash = jobHref(reply.name);
    } catch (refused) { setError(refused); }
    setBusy(false);
  };
  const sections = [...new Set(fields.map((field) => field.section))];
  const show = (field) => <Field key={field.name} field={field} value={typed[field.name] ?? ''} onValue={set(field.name)} />;
  return (
    <>
      <h1>Submit a job</h1>
      <form class="form" onSubmit={(event) => { event.preventDefault(); send(false); }}>
        <Card><div class="fields">{first.map((name) => fields.find((field) => field.name === name)).filter(Boolean).map(show)}
          {presets.length > 0 && <div class="field"><label for="field-preset"><code>preset</code></label>
            <select id="field-preset" value={typed.preset ?? ''} onChange={(event) => set('preset')(event.currentTarget.value)}>
              <option value="">none</option>{presets.map((preset) => <option key={preset.name} value={preset.name}>{preset.name}</option>)}</select>
            <small>{presets.find((preset) => preset.name === typed.preset)?.sets || 'where the settings begin; whatever is said besides wins'}</small></div>}
        </div></Card>
        <Card><details><summary>The job: name, tenant, priority, device, labels</summary>
          <div class="fields">{jobFields.map(([name, title, help]) => (
            <div class="field" key={name}><label for={`job-${name}`}>{title}</label>
              <input id={`job-${name}`} value={job[name] ?? ''} autocomplete="off" spellcheck={false} onInput={(event) => setJob({...job, [name]: event.currentTarget.value})} /><small>{help}</small></div>))}</div></details></Card>
        {sections.map((section) => {
          const rest = fields.filter((field) => field.section === section && !first.includes(field.name));
          return rest.length > 0 && <Card key={section}><details><summary>{section}</summary><div class="fields">{rest.map(show)}</div></details></Card>;
        })}
        <Refusal error={error} />
        {done && <Notice kind="good" live>{done}</Notice>}
        <div class="row"><button type="submit" class="primary" disabled={busy}>Submit</button><button type="button" disabled={busy} onClick={() => send(true)}>Only check</button></div>
      </form>
    </>
  );
}
