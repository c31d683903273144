// An issuer of tokens for jobs, for the tests: it gives a job a token as GitHub Actions does, with the claims
// that GitHub documents, and prints others on demand.
// usage: node issuer.mjs BEARER
// It prints `listening PORT`. `GET /jwks`, `GET /token?audience=A` with the bearer, `GET /mint?audience=A&claims=JSON`.
import { createServer } from 'node:http';
import { createSign, generateKeyPairSync, randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';

const [bearer] = process.argv.slice(2);
const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const kid = randomUUID();
// What is null is left out: a claim of the frame that this token does not have.
const present = (_, value) => value === null ? undefined : value;
const b64 = (value) => Buffer.from(JSON.stringify(value, present)).toString('base64url');

function sign(claims) {
  const text = `${b64({ typ: 'JWT', alg: 'RS256', kid })}.${b64(claims)}`;
  return `${text}.${createSign('RSA-SHA256').update(text).sign(privateKey).toString('base64url')}`;
}

function frame(issuer, audience) {
  const now = Math.floor(Date.now() / 1000);
  return { jti: randomUUID(), iss: issuer, aud: audience, iat: now, nbf: now, exp: now + 300 };
}

const github = {
  sub: 'repo:example@1001/shop@74001:environment:production',
  ref: 'refs/heads/main', sha: '8f2d6a5b7c3e4f90112233445566778899aabbcc',
  repository: 'example/shop', repository_id: '74001', repository_owner: 'example', repository_owner_id: '1001',
  repository_visibility: 'private', run_id: '9120045511', run_number: '88', run_attempt: '2', check_run_id: '30011',
  actor: 'casey', actor_id: '5501', workflow: 'deploy', head_ref: '', base_ref: '', event_name: 'push',
  ref_protected: 'true', ref_type: 'branch', environment: 'production', runner_environment: 'github-hosted',
  workflow_ref: 'example/shop/.github/workflows/deploy.yml@refs/heads/main',
  workflow_sha: '8f2d6a5b7c3e4f90112233445566778899aabbcc',
  job_workflow_ref: 'example/shop/.github/workflows/deploy.yml@refs/heads/main',
  job_workflow_sha: '8f2d6a5b7c3e4f90112233445566778899aabbcc',
};

const server = createServer((request, response) => {
  const url = new URL(request.url, 'http://localhost');
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const audience = url.searchParams.get('audience');
  const json = (value) => response.setHeader('content-type', 'application/json').end(JSON.stringify(value));
  if (url.pathname === '/jwks') {
    return json({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'RS256' }] });
  }
  if (url.pathname === '/token' && request.headers.authorization === `Bearer ${bearer}`) {
    return json({ count: 1, value: sign({ ...frame(issuer, audience), ...github }) });
  }
  if (url.pathname === '/mint') {
    return response.end(sign({ ...frame(issuer, audience), ...JSON.parse(url.searchParams.get('claims')) }));
  }
  return response.writeHead(401).end();
});
server.listen(0, '127.0.0.1', () => console.log(`listening ${server.address().port}`));
createInterface({ input: process.stdin }).on('close', () => process.exit());
