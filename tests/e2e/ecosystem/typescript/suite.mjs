// The official TypeScript client's everyday work against a running FirnDB.
//
// Run by tests/e2e/test_ecosystem.py: PINECONE_API_KEY=... PINECONE_CONTROLLER_HOST=http://127.0.0.1:8080
// CLIENT_FOLDER=.clients/typescript CLIENT_PACKAGE=pinecone-9 node --test suite.mjs (`make clients`).

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { describe, test } from 'node:test';

const installed = createRequire(`${process.env.CLIENT_FOLDER}/package.json`);
const { Errors, Pinecone } = installed(process.env.CLIENT_PACKAGE);
const withPods = process.env.CLIENT_PACKAGE === 'pinecone-8';
const skip = !withPods && 'this version of the client makes no pod-based indexes';

const spec = { serverless: { cloud: 'aws', region: 'us-east-1' } };
const named = (what) => `${what}-${randomUUID().slice(0, 12)}`;
const ids = (found) => found.matches.map((match) => match.id);

/** Runs `work` with a fresh index, which is deleted at the end. */
async function withIndex(work, options = {}) {
  const pc = new Pinecone();
  const name = named('ts');
  const made = { name, dimension: 3, metric: 'cosine', spec, waitUntilReady: true, ...options };
  const model = await pc.createIndex(made);
  try {
    await work(pc.index({ host: model.host }), pc, name);
  } finally {
    await pc.deleteIndex(name);
  }
}

describe('indexes', () => {
  test('a serverless index lives and dies', async () => {
    const pc = new Pinecone();
    const name = named('life');
    const made = await pc.createIndex({
      name, dimension: 8, metric: 'euclidean', spec, deletionProtection: 'enabled', tags: { team: 'ice' },
    });
    assert.match(made.host, /^http:\/\//);
    const described = await pc.describeIndex(name);
    assert.equal(described.dimension, 8);
    assert.equal(described.metric, 'euclidean');
    assert.equal(described.status.ready, true);
    assert.equal(described.vectorType, 'dense');
    assert.equal(described.spec.serverless.region, 'us-east-1');
    assert.ok((await pc.listIndexes()).indexes.some((index) => index.name === name));
    await assert.rejects(pc.createIndex({ name, dimension: 8, spec }), Errors.PineconeConflictError);
    await pc.createIndex({ name, dimension: 8, spec, suppressConflicts: true });
    await assert.rejects(pc.deleteIndex(name), /protect/i);
    const configured = await pc.configureIndex({
      name, deletionProtection: 'disabled', tags: { team: '', floor: 'two' },
    });
    assert.deepEqual(configured.tags, { floor: 'two' });
    await pc.deleteIndex(name);
    await assert.rejects(pc.describeIndex(name), Errors.PineconeNotFoundError);
  });

  test('a pod-based index is served like the others and keeps its numbers', { skip }, async () => {
    const pod = { environment: 'us-east1-gcp', podType: 'p1.x1', pods: 1, replicas: 1, shards: 1 };
    await withIndex(async (index, pc, name) => {
      assert.equal((await pc.describeIndex(name)).spec.pod.podType, 'p1.x1');
      await index.upsert({ records: [{ id: 'a', values: [1, 0, 0] }] });
      assert.deepEqual(ids(await index.query({ vector: [1, 0, 0], topK: 1 })), ['a']);
      const configured = await pc.configureIndex({ name, podReplicas: 2 });
      assert.equal(configured.spec.pod.replicas, 2);
    }, { spec: { pod } });
  });
});

describe('records', () => {
  const records = [
    { id: 'doc1#a', values: [1, 0, 0], metadata: { genre: 'drama', year: 1990, tags: ['old', 'cold'] } },
    { id: 'doc1#b', values: [0, 1, 0], metadata: { genre: 'action', year: 2001 } },
    { id: 'doc2#a', values: [0.9, 0.1, 0], metadata: { genre: 'drama', year: 2020 } },
  ];

  test('upsert, query with filters, fetch, update, delete', async () => {
    await withIndex(async (index) => {
      await index.upsert({ records });
      const found = await index.query({ vector: [1, 0, 0], topK: 2, includeValues: true, includeMetadata: true });
      assert.deepEqual(ids(found), ['doc1#a', 'doc2#a']);
      assert.ok(Math.abs(found.matches[0].score - 1) < 1e-4);
      assert.deepEqual(found.matches[0].metadata, records[0].metadata);
      assert.deepEqual(found.matches[0].values, [1, 0, 0]);
      assert.ok(found.usage.readUnits >= 1);
      const filter = { genre: 'drama', year: { $gt: 2000 } };
      assert.deepEqual(ids(await index.query({ id: 'doc1#a', topK: 3, filter })), ['doc2#a']);
      const fetched = await index.fetch({ ids: ['doc1#b', 'missing'] });
      assert.deepEqual(Object.keys(fetched.records), ['doc1#b']);
      await index.update({ id: 'doc1#b', metadata: { seen: true }, values: [0, 0, 1] });
      const updated = (await index.fetch({ ids: ['doc1#b'] })).records['doc1#b'];
      assert.deepEqual(updated.values, [0, 0, 1]);
      assert.deepEqual(updated.metadata, { genre: 'action', year: 2001, seen: true });
      await index.deleteOne({ id: 'doc1#b' });
      await index.deleteMany({ filter: { year: { $lt: 2000 } } });
      assert.deepEqual(ids(await index.query({ vector: [1, 0, 0], topK: 9 })), ['doc2#a']);
      await index.deleteMany({ ids: ['doc2#a'] });
      assert.equal((await index.describeIndexStats()).totalRecordCount, 0);
    });
  });

  test('by metadata: fetch and update', async () => {
    await withIndex(async (index) => {
      await index.upsert({ records });
      const drama = await index.fetchByMetadata({ filter: { genre: 'drama' } });
      assert.deepEqual(Object.keys(drama.records).sort(), ['doc1#a', 'doc2#a']);
      await index.update({ filter: { genre: 'drama' }, metadata: { seen: true } });
      const seen = await index.fetchByMetadata({ filter: { seen: true }, limit: 1 });
      assert.equal(Object.keys(seen.records).length, 1);
      const filter = { seen: true };
      const rest = await index.fetchByMetadata({ filter, paginationToken: seen.pagination.next });
      assert.equal(Object.keys(rest.records).length, 1);
    });
  });

  test('ids are listed page by page', async () => {
    await withIndex(async (index) => {
      const many = Array.from({ length: 25 }, (_, i) => ({ id: `doc#${String(i).padStart(2, '0')}`, values: [1, i, 0] }));
      await index.upsert({ records: [...many, { id: 'other', values: [0, 0, 1] }] });
      const seen = [];
      let paginationToken;
      do {
        const page = await index.listPaginated({ prefix: 'doc#', limit: 10, paginationToken });
        seen.push(...page.vectors.map((vector) => vector.id));
        paginationToken = page.pagination?.next;
      } while (paginationToken);
      assert.deepEqual(seen, many.map((record) => record.id));
    });
  });

  test('sparse and hybrid', async () => {
    await withIndex(async (index) => {
      await index.upsert({ records: [
        { id: 's1', sparseValues: { indices: [1, 5], values: [0.5, 2] } },
        { id: 's2', sparseValues: { indices: [5, 9], values: [1, 1] } },
      ] });
      const sparseVector = { indices: [1, 5], values: [1, 1] };
      const found = await index.query({ sparseVector, topK: 5 });
      assert.deepEqual(found.matches.map((m) => [m.id, m.score]), [['s1', 2.5], ['s2', 1]]);
    }, { dimension: undefined, metric: 'dotproduct', vectorType: 'sparse' });
    await withIndex(async (index) => {
      await index.upsert({ records: [
        { id: 'h1', values: [1, 0, 0], sparseValues: { indices: [3], values: [1] } },
        { id: 'h2', values: [1.5, 0, 0] },
      ] });
      const sparseVector = { indices: [3], values: [1] };
      const found = await index.query({ vector: [1, 0, 0], sparseVector, topK: 2 });
      assert.deepEqual(found.matches.map((m) => [m.id, m.score]), [['h1', 2], ['h2', 1.5]]);
    }, { metric: 'dotproduct' });
  });

  test('search of records by id and by vector', async () => {
    await withIndex(async (index) => {
      await index.upsert({ records });
      const byId = await index.searchRecords({ query: { id: 'doc1#a', topK: 2 }, fields: ['genre'] });
      assert.deepEqual(byId.result.hits.map((hit) => hit._id), ['doc1#a', 'doc2#a']);
      assert.deepEqual(byId.result.hits[1].fields, { genre: 'drama' });
      const query = { vector: { values: [0, 1, 0] }, topK: 1, filter: { year: 2001 } };
      const byVector = await index.searchRecords({ query });
      assert.deepEqual(byVector.result.hits.map((hit) => hit._id), ['doc1#b']);
      const byText = index.searchRecords({ query: { inputs: { text: 'ice' }, topK: 1 } });
      await assert.rejects(byText, Errors.PineconeBadRequestError);
    });
  });
});

describe('namespaces', () => {
  test('tenants are held apart, counted, listed and deleted', async () => {
    await withIndex(async (index) => {
      for (const tenant of ['tenant1', 'tenant2']) {
        const records = ['A', 'B', 'C', 'D'].map((id, n) => ({ id, values: [1, n, 0], metadata: { of: tenant } }));
        await index.namespace(tenant).upsert({ records });
      }
      await index.namespace('tenant1').update({ id: 'A', values: [0, 0, 9] });
      const found = await index.namespace('tenant2').query({ vector: [1, 0, 0], topK: 3, includeMetadata: true });
      assert.deepEqual(ids(found), ['A', 'B', 'C']);
      assert.ok(found.matches.every((match) => match.metadata.of === 'tenant2'));
      const stats = await index.describeIndexStats();
      assert.deepEqual(stats.namespaces, { tenant1: { recordCount: 4 }, tenant2: { recordCount: 4 } });
      assert.equal(stats.totalRecordCount, 8);
      const listed = await index.listNamespaces();
      assert.deepEqual(listed.namespaces.map((n) => n.name).sort(), ['tenant1', 'tenant2']);
      assert.equal(Number((await index.describeNamespace('tenant1')).recordCount), 4);
      await index.deleteNamespace('tenant1');
      await assert.rejects(index.describeNamespace('tenant1'), Errors.PineconeNotFoundError);
      assert.deepEqual(ids(await index.namespace('tenant1').query({ vector: [1, 0, 0], topK: 3 })), []);
      await index.namespace('tenant2').deleteAll();
      assert.equal((await index.describeIndexStats()).totalRecordCount, 0);
      const made = await index.createNamespace({ name: 'empty', schema: { fields: { year: { filterable: true } } } });
      assert.equal(made.name, 'empty');
      await assert.rejects(index.createNamespace({ name: 'empty' }), Errors.PineconeConflictError);
    });
  });
});

describe('collections and backups', () => {
  test('an index from a collection of a pod-based index', { skip }, async () => {
    const pod = { environment: 'us-east1-gcp', podType: 'p1.x1', pods: 1 };
    await withIndex(async (index, pc, source) => {
      await index.upsert({ records: [{ id: 'a', values: [1, 0, 0], metadata: { n: 1 } }] });
      const collection = named('collection');
      await pc.createCollection({ name: collection, source });
      const copy = named('copy');
      try {
        await until(async () => (await pc.describeCollection(collection)).status === 'Ready');
        assert.ok((await pc.listCollections()).collections.some((c) => c.name === collection));
        const from = { pod: { ...pod, sourceCollection: collection } };
        const made = await pc.createIndex({ name: copy, dimension: 3, metric: 'cosine', spec: from, waitUntilReady: true });
        const fetched = await pc.index({ host: made.host }).fetch({ ids: ['a'] });
        assert.deepEqual(fetched.records.a.metadata, { n: 1 });
      } finally {
        await pc.deleteIndex(copy).catch(() => {});
        await pc.deleteCollection(collection);
      }
    }, { spec: { pod } });
  });

  test('an index from a backup', async () => {
    await withIndex(async (index, pc, source) => {
      await index.namespace('ns').upsert({ records: [{ id: 'a', values: [1, 0, 0], metadata: { n: 1 } }] });
      const { backupId } = await pc.createBackup({ indexName: source, name: 'nightly' });
      const copy = named('restored');
      try {
        await until(async () => (await pc.describeBackup(backupId)).status === 'Ready');
        assert.ok((await pc.listBackups({ indexName: source })).data.some((b) => b.backupId === backupId));
        const job = await pc.createIndexFromBackup({ backupId, name: copy });
        await until(async () => (await pc.describeRestoreJob(job.restoreJobId)).status === 'Completed');
        const { host } = await pc.describeIndex(copy);
        const fetched = await pc.index({ host, namespace: 'ns' }).fetch({ ids: ['a'] });
        assert.deepEqual(fetched.records.a.metadata, { n: 1 });
      } finally {
        await pc.deleteIndex(copy).catch(() => {});
        await pc.deleteBackup(backupId);
      }
    });
  });
});

describe('errors', () => {
  test('have the classes that the client names', async () => {
    const controllerHostUrl = process.env.PINECONE_CONTROLLER_HOST; // with options, it reads no environment
    const stranger = new Pinecone({ apiKey: 'wrong', controllerHostUrl });
    await assert.rejects(stranger.listIndexes(), Errors.PineconeAuthorizationError);
    await withIndex(async (index) => {
      const wrong = index.upsert({ records: [{ id: 'x', values: [1, 2] }] });
      await assert.rejects(wrong, (error) => {
        assert.ok(error instanceof Errors.PineconeBadRequestError);
        assert.match(error.message, /dimension/i);
        return true;
      });
      await assert.rejects(index.query({ vector: [1, 0, 0], topK: 10001 }), Errors.PineconeBadRequestError);
      const unknown = index.query({ vector: [1, 0, 0], topK: 1, filter: { a: { $bogus: 1 } } });
      await assert.rejects(unknown, /\$bogus/);
      const nowhere = index.namespace('never-made').deleteMany({ ids: ['x'] });
      await assert.rejects(nowhere, Errors.PineconeNotFoundError);
    });
  });
});

/** Polls until `condition` holds; a minute is long enough for anything here. */
async function until(condition) {
  for (let turn = 0; turn < 600; turn += 1) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail(`not within a minute: ${condition}`);
}
