// An OpenID Connect provider for the tests: a certified server, with one person who is always logged in.
// usage: node provider.mjs CALLER-CLIENT-ID ACCOUNT [SECONDS]
// An ID token lasts for so many SECONDS, ten minutes otherwise.
// It prints `listening PORT` and takes one command a line: `rotate` makes a new key and drops the old;
// `groups NAME,NAME` says in which groups the person is from now on; `manager SUB` who their manager is; `proves ACR MEANS,MEANS SECONDS` how they prove
// themself, so long before they come.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

const [clientId, account, lasts = '600'] = process.argv.slice(2);
const store = new Map();

class Memory {
  constructor(name) { this.name = name; }
  key(id) { return `${this.name}:${id}`; }
  async upsert(id, payload) { store.set(this.key(id), payload); }
  async find(id) { return store.get(this.key(id)); }
  async findByUid(uid) { return this.first((payload) => payload.uid === uid); }
  async findByUserCode(code) { return this.first((payload) => payload.userCode === code); }
  first(fits) {
    for (const [key, payload] of store) if (key.startsWith(`${this.name}:`) && fits(payload)) return payload;
    return undefined;
  }
  async destroy(id) { store.delete(this.key(id)); }
  async consume(id) { store.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }
  async revokeByGrantId() {}
}

function freshKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };
}

const server = createServer((request, response) => handle(request, response));
let groups = [];
let manager;
let proved = {};
let handle = (_, response) => response.writeHead(503).end();

function start(key) {
  const { port } = server.address();
  const provider = new Provider(`http://127.0.0.1:${port}`, {
    adapter: Memory,
    jwks: { keys: [key] },
    clients: [{
      client_id: clientId,
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      redirect_uris: ['http://127.0.0.1/callback'],
      grant_types: ['authorization_code', 'urn:ietf:params:oauth:grant-type:device_code'],
      response_types: ['code'],
    }],
    pkce: { required: () => true },
    features: { devInteractions: { enabled: false }, deviceFlow: { enabled: true } },
    cookies: { keys: ['test'] },
    ttl: { AccessToken: 600, AuthorizationCode: 60, IdToken: Number(lasts), DeviceCode: 600, Grant: 600, Interaction: 600, Session: 600 },
    findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub, groups, manager }) }),
    // `acr` and `auth_time` are told to whoever asks for them.
    acrValues: ['urn:example:pwd', 'urn:example:mfa', 'urn:example:phr'],
    claims: { openid: ['sub', 'groups', 'manager', 'amr'], acr: null, auth_time: null },
    conformIdTokenClaims: false,
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  });
  const plain = provider.callback();
  handle = async (request, response) => {
    if (!request.url.startsWith('/interaction/')) return plain(request, response);
    // Whoever comes is the account, and agrees to what is asked.
    const { params, session, prompt } = await provider.interactionDetails(request, response);
    const grant = new provider.Grant({ accountId: session?.accountId ?? account, clientId: params.client_id });
    grant.addOIDCScope('openid');
    const { ago = 0, ...how } = proved;
    const ts = Math.floor(Date.now() / 1000) - ago;
    const result = { login: { accountId: account, ts, ...how }, consent: { grantId: await grant.save() } };
    return provider.interactionFinished(request, response, prompt.name === 'login' ? result : { consent: result.consent });
  };
}

server.listen(0, '127.0.0.1', () => {
  start(freshKey());
  console.log(`listening ${server.address().port}`);
});

createInterface({ input: process.stdin })
  .on('line', (line) => {
    if (line.startsWith('groups ')) {
      groups = line.slice(7).split(',');
      console.log('grouped');
    }
    if (line.startsWith('manager ')) {
      manager = line.slice(8);
      console.log('managed');
    }
    if (line.startsWith('proves ')) {
      const [acr, amr, ago] = line.slice(7).split(' ');
      proved = { acr, amr: amr.split(','), ago: Number(ago) };
      console.log('proved');
    }
    if (line !== 'rotate') return;
    start(freshKey());
    console.log('rotated');
  })
  .on('close', () => process.exit());
