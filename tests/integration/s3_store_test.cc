// The S3 store against a real, strict S3 server: the conformance suite in every addressing style,
// and what is S3's own: multipart uploads, their leftovers, credentials, skewed clocks, parallel
// reads.
#include "common/object_store/s3_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/crash_point.h"
#include "common/object_store/caching_store.h"
#include "common/object_store/open_data.h"
#include "tests/integration/s3_test_server.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/common/object_store_conformance.h"

namespace uniquanf {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

S3TestServer* server = nullptr;  // main's

std::shared_ptr<ObjectStore> Open(const std::string& uri, const Environment& environment,
                                  const Clock* clock = nullptr) {
  S3StoreOptions options;
  options.environment = environment;
  options.clock = clock;
  return OpenS3Store(uri, options).value();
}

Environment VirtualHosts() {
  return server->NewEnvironment({{"AWS_ENDPOINT_URL", "http://localhost:" + server->port()},
                                 {"UNIQUANF_S3_ADDRESSING", "virtual"}});
}

std::shared_ptr<ObjectStore> NewPathStyleStore() {
  const Environment environment = server->NewEnvironment();
  return Open("s3://" + NewTestBucket(environment), environment);
}
std::shared_ptr<ObjectStore> NewVirtualHostStore() {
  return Open("s3://" + NewTestBucket(server->NewEnvironment()), VirtualHosts());
}
std::shared_ptr<ObjectStore> NewPrefixStore() {
  const Environment environment = server->NewEnvironment();
  const std::string bucket = NewTestBucket(environment);
  // Neighbours that the store must not show.
  EXPECT_OK(Open("s3://" + bucket, environment)->Write("a+b/c=d:e.f", "not below the prefix"));
  EXPECT_OK(Open("s3://" + bucket, environment)->Write("z", "neither"));
  return Open("s3://" + bucket + "/a+b/c=d:e", environment);
}
std::shared_ptr<ObjectStore> NewSmallPartStore() {
  S3StoreOptions options;
  options.environment = server->NewEnvironment();
  options.min_part_bytes = 5 << 20;
  return OpenS3Store("s3://" + NewTestBucket(options.environment), options).value();
}

// Behind a cache whose pieces are smaller than the suite's objects.
std::shared_ptr<ObjectStore> NewCachedStore() {
  auto dir = std::make_shared<TempDir>();
  ObjectCacheOptions options;
  options.directory = dir->path();
  options.max_bytes = 8 << 20;
  options.piece_bytes = 1 << 20;
  const std::shared_ptr<ObjectStore> store =
      NewCachingStore(NewPathStyleStore(), std::make_shared<ObjectCache>(std::move(options)));
  ObjectStore* const raw = store.get();
  return std::shared_ptr<ObjectStore>(raw, [dir, store](ObjectStore*) {});
}

INSTANTIATE_TEST_SUITE_P(S3Cached, ObjectStoreConformance, ::testing::Values(NewCachedStore));
INSTANTIATE_TEST_SUITE_P(S3Path, ObjectStoreConformance, ::testing::Values(NewPathStyleStore));
INSTANTIATE_TEST_SUITE_P(S3VirtualHost, ObjectStoreConformance,
                         ::testing::Values(NewVirtualHostStore));
INSTANTIATE_TEST_SUITE_P(S3Prefix, ObjectStoreConformance, ::testing::Values(NewPrefixStore));
INSTANTIATE_TEST_SUITE_P(S3Parts, ObjectStoreConformance, ::testing::Values(NewSmallPartStore));

class S3StoreTest : public ::testing::Test {
 protected:
  S3StoreTest()
      : environment_(server->NewEnvironment()),
        bucket_(NewTestBucket(environment_)),
        uri_("s3://" + bucket_),
        store_(Open(uri_, environment_)) {}

  int AbortUploadsOlderThan(absl::Duration age) {
    S3StoreOptions options;
    options.environment = environment_;
    const absl::StatusOr<int> count = AbortStaleS3Uploads(uri_, age, options);
    EXPECT_OK(count);
    return count.ok() ? *count : -1;
  }
  // All uploads that are under way, aborting them: `Initiated` has a granularity of its own.
  int NumUploads() { return AbortUploadsOlderThan(-absl::Hours(1)); }

  const Environment environment_;
  const std::string bucket_;
  const std::string uri_;
  const std::shared_ptr<ObjectStore> store_;
};

std::string Pattern(size_t size_bytes) {
  std::string data(size_bytes, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>((i * 2654435761u) >> 11);
  return data;
}

TEST_F(S3StoreTest, ObjectsAroundThePartSizeAreKept) {
  const size_t part = kDefaultMinPartBytes;
  for (const size_t size_bytes : {part - 1, part, part + 1, 2 * part, 2 * part + 1}) {
    const std::string data = Pattern(size_bytes);
    WriteOptions options;
    options.expected_sha256 = Sha256Hex(data);
    ASSERT_OK(store_->Write("object", data, options)) << size_bytes;
    ASSERT_OK_AND_ASSIGN(const std::string back, store_->Read("object", size_bytes));
    EXPECT_EQ(Sha256Hex(back), options.expected_sha256) << size_bytes;
  }
  EXPECT_EQ(NumUploads(), 0);
}

TEST_F(S3StoreTest, ConditionalMultipartWriteRefusesToReplace) {
  WriteOptions options;
  options.if_absent = true;
  const std::string data = Pattern(kDefaultMinPartBytes + 100);
  ASSERT_OK(store_->Write("large", data, options));
  EXPECT_THAT(store_->Write("large", data, options),
              FailsWith(absl::StatusCode::kAlreadyExists, "OBJECT_EXISTS"));
  EXPECT_EQ(NumUploads(), 0);
}

TEST_F(S3StoreTest, ConditionalMultipartWriteSeesAWriterThatWasFaster) {
  WriteOptions options;
  options.if_absent = true;
  ASSERT_OK_AND_ASSIGN(auto slow, store_->NewWriter("large", options));
  ASSERT_OK(slow->Append(Pattern(kDefaultMinPartBytes + 100)));
  ASSERT_OK(store_->Write("large", "the faster one", options));
  EXPECT_THAT(slow->Commit(), FailsWith(absl::StatusCode::kAlreadyExists, "OBJECT_EXISTS"));
  ASSERT_OK_AND_ASSIGN(const std::string data, store_->Read("large", 100));
  EXPECT_EQ(data, "the faster one");
  EXPECT_EQ(NumUploads(), 0);
}

TEST_F(S3StoreTest, AbandonedAndMismatchedUploadsAreAborted) {
  {
    ASSERT_OK_AND_ASSIGN(auto writer, store_->NewWriter("abandoned", {}));
    ASSERT_OK(writer->Append(Pattern(2 * kDefaultMinPartBytes)));
  }
  WriteOptions options;
  options.expected_sha256 = Sha256Hex("something else");
  EXPECT_THAT(store_->Write("mismatched", Pattern(2 * kDefaultMinPartBytes), options),
              FailsWith(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH"));
  EXPECT_EQ(NumUploads(), 0);
  ASSERT_OK_AND_ASSIGN(const ListResult list, store_->List({}));
  EXPECT_TRUE(list.objects.empty());
}

TEST_F(S3StoreTest, AKilledWriterLeavesNoObjectAndItsUploadIsSweptWhenOld) {
  for (const std::string& point :
       {CrashPoint("s3_writer.after_part").At(2), CrashPoint("s3_writer.before_complete").At(1)}) {
    // A new program, because crash points are read when it starts; see main.
    const pid_t child = fork();
    if (child == 0) {
      setenv(kCrashPointVariable, point.c_str(), 1);
      setenv("UNIQUANF_S3_ENDPOINT", environment_("AWS_ENDPOINT_URL").c_str(), 1);
      setenv("AWS_ACCESS_KEY_ID", environment_("AWS_ACCESS_KEY_ID").c_str(), 1);
      setenv("AWS_SECRET_ACCESS_KEY", environment_("AWS_SECRET_ACCESS_KEY").c_str(), 1);
      execl("/proc/self/exe", "s3_store_test", "--write", (uri_ + "/victim").c_str(), nullptr);
      _exit(127);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
    EXPECT_THAT(store_->Stat("victim"), FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
    EXPECT_EQ(AbortUploadsOlderThan(absl::Hours(1)), 0) << "it is not old yet";
    EXPECT_EQ(NumUploads(), 1);
    EXPECT_EQ(NumUploads(), 0);
  }
}

TEST_F(S3StoreTest, SweepingHonoursThePrefixAndManyUploads) {
  std::vector<std::unique_ptr<ObjectWriter>> writers;
  const std::string data = Pattern(kDefaultMinPartBytes + 1);
  for (const char* key : {"jobs/1", "jobs/2", "jobs2/1"}) {
    ASSERT_OK_AND_ASSIGN(auto writer, store_->NewWriter(key, {}));
    ASSERT_OK(writer->Append(data));
    writers.push_back(std::move(writer));
  }
  S3StoreOptions options;
  options.environment = environment_;
  ASSERT_OK_AND_ASSIGN(const int swept,
                       AbortStaleS3Uploads(uri_ + "/jobs", -absl::Hours(1), options));
  EXPECT_EQ(swept, 2);
  // Who was swept says so, and does not pretend to have written.
  EXPECT_THAT(writers[0]->Commit(), FailsWith(absl::StatusCode::kUnavailable, "STORE_UNAVAILABLE"));
  EXPECT_OK(writers[2]->Commit());
  EXPECT_THAT(store_->Stat("jobs/1"), FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
  EXPECT_OK(store_->Stat("jobs2/1"));
}

TEST_F(S3StoreTest, ManyThreadsReadRangesOfOneObject) {
  const std::string data = Pattern(24 << 20);
  ASSERT_OK(store_->Write("tensors", data));
  std::string back(data.size(), '\0');
  constexpr size_t kChunk = (1 << 20) + 7;
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] {
      for (size_t at = next.fetch_add(kChunk); at < data.size(); at = next.fetch_add(kChunk)) {
        const size_t size_bytes = std::min(kChunk, data.size() - at);
        EXPECT_OK(store_->ReadAt("tensors", at, size_bytes, back.data() + at));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Sha256Hex(back), Sha256Hex(data));
}

TEST_F(S3StoreTest, AVersionIsReadUntilTheObjectIsReplaced) {
  // A multipart object's entity tag is no digest of its bytes.
  for (const size_t size_bytes : {size_t{1000}, size_t{kDefaultMinPartBytes + 1000}}) {
    ASSERT_OK(store_->Write("object", Pattern(size_bytes)));
    ASSERT_OK_AND_ASSIGN(const ObjectInfo info, store_->Stat("object"));
    ASSERT_NE(info.version, "");
    std::string part(500, '\0');
    ASSERT_OK(store_->ReadVersionAt("object", info.version, 400, part.size(), part.data()));
    EXPECT_EQ(part, Pattern(size_bytes).substr(400, part.size()));
    ASSERT_OK(store_->Write("object", std::string(size_bytes, 'n')));
    EXPECT_THAT(store_->ReadVersionAt("object", info.version, 400, part.size(), part.data()),
                FailsWith(absl::StatusCode::kAborted, "OBJECT_CHANGED"));
    ASSERT_OK_AND_ASSIGN(const ObjectInfo replaced, store_->Stat("object"));
    EXPECT_NE(replaced.version, info.version);
  }
}

TEST_F(S3StoreTest, WrongCredentialsAreRefusedAndNeverShown) {
  const std::string secret = "wrong-Secret/with+signs=";
  const std::string token = "Session//Token+of==this/test";
  for (const auto& changes : std::vector<std::map<std::string, std::string>>{
           {{"AWS_SECRET_ACCESS_KEY", secret}},
           {{"AWS_ACCESS_KEY_ID", "AKNOBODYHASTHIS"}, {"AWS_SECRET_ACCESS_KEY", secret}},
           {{"AWS_SECRET_ACCESS_KEY", secret}, {"AWS_SESSION_TOKEN", token}}}) {
    const std::shared_ptr<ObjectStore> store = Open(uri_, server->NewEnvironment(changes));
    for (const absl::Status& status :
         {store->Stat("key").status(), store->Read("key", 10).status(), store->Write("key", "x"),
          store->List({}).status(), store->Delete("key")}) {
      EXPECT_THAT(status, FailsWith(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED"));
      EXPECT_THAT(status.ToString(), Not(AnyOf(HasSubstr(secret), HasSubstr(token),
                                               HasSubstr("AKNOBODY"), HasSubstr("AKTEST"))));
    }
  }
}

TEST_F(S3StoreTest, AnonymousRequestsReachPublicObjectsOnly) {
  const std::string bucket = NewTestBucket(environment_, "public-read-write");
  ASSERT_TRUE(PutTestObject(environment_, bucket, "key", "public", "public-read"));
  const Environment anonymous = server->NewEnvironment({{"UNIQUANF_S3_ANONYMOUS", "true"}});
  const std::shared_ptr<ObjectStore> store = Open("s3://" + bucket, anonymous);
  ASSERT_OK_AND_ASSIGN(const std::string data, store->Read("key", 100));
  EXPECT_EQ(data, "public");
  EXPECT_OK(store->Write("other", "x"));
  const auto denied = FailsWith(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED");
  EXPECT_THAT(Open(uri_, anonymous)->Write("key", "x"), denied);
  EXPECT_THAT(Open(uri_, anonymous)->Read("key", 10), denied);
}

TEST_F(S3StoreTest, AMissingBucketIsNamed) {
  const std::shared_ptr<ObjectStore> store = Open("s3://no-such-bucket-here", environment_);
  EXPECT_THAT(store->Write("key", "x"), FailsWith(absl::StatusCode::kFailedPrecondition,
                                                  "BUCKET_NOT_FOUND", HasSubstr("no-such-bucket")));
  EXPECT_THAT(store->List({}),
              FailsWith(absl::StatusCode::kFailedPrecondition, "BUCKET_NOT_FOUND"));
}

// Two hours ahead of the server, which accepts 15 minutes.
class FastClock : public Clock {
 public:
  absl::Time Now() const override { return SystemClock().Now() + absl::Hours(2); }
  absl::Duration Monotonic() const override { return SystemClock().Monotonic(); }
};

TEST_F(S3StoreTest, ASkewedClockIsCorrectedByTheServersTime) {
  const FastClock clock;
  const std::shared_ptr<ObjectStore> store = Open(uri_, environment_, &clock);
  ASSERT_OK(store->Write("key", "written with a skewed clock"));
  ASSERT_OK_AND_ASSIGN(const ObjectInfo info, store->Stat("key"));
  EXPECT_EQ(info.size_bytes, 27u);
}

TEST_F(S3StoreTest, ListingsBeyondOnePageOfTheServerAreContinued) {
  constexpr int kObjects = 1030;  // a page has 1000
  std::atomic<int> next{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = next.fetch_add(1); n < kObjects; n = next.fetch_add(1)) {
        EXPECT_OK(store_->Write(absl::StrCat("k", 10000 + n), "x"));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ListOptions options;
  ASSERT_OK_AND_ASSIGN(const ListResult first, store_->List(options));
  EXPECT_EQ(first.objects.size(), 1000u);
  EXPECT_TRUE(first.truncated);
  options.start_after = first.objects.back().key;
  ASSERT_OK_AND_ASSIGN(const ListResult second, store_->List(options));
  EXPECT_EQ(second.objects.size(), 30u);
  EXPECT_FALSE(second.truncated);
}

// SECURITY R13: two tenants' buckets and keys. What S3 itself says counts, whatever prefixes the
// policy lends: a grant's store is opened with the tenant's keys and with no others.
TEST(TenantsOnS3Test, T4_ATenantsKeysOpenItsOwnBucketsAndNoOthers) {
  if (!server->NewUser("alice") || !server->NewUser("mallory")) {
    GTEST_SKIP() << "the S3 server is not this program's, so it has one user";
  }
  server->UseInThisProcess();  // whose user "test" is the worker's own
  TempDir keys;
  std::map<std::string, std::string> bucket;
  for (const std::string name : {"alice", "mallory"}) {
    std::ofstream(keys.File(name)) << "[default]\naws_access_key_id = AK" << name
                                   << "\naws_secret_access_key = SK" << name << "\n";
    bucket[name] =
        "s3://" + NewTestBucket(server->NewEnvironment({{"AWS_ACCESS_KEY_ID", "AK" + name},
                                                        {"AWS_SECRET_ACCESS_KEY", "SK" + name}}));
  }
  const auto open = [&](const std::string& uri, const std::string& credentials) {
    // A policy that lends more than it should.
    const std::vector<DataGrant> grants = {
        {"s3://", {std::begin(kDataPurposes), std::end(kDataPurposes)}, credentials}};
    return *OpenData(
        uri, {{}, std::make_shared<DataAccess>(grants, std::vector<std::string>(), keys.path())});
  };
  const auto alices = open(bucket["alice"], "file:alice");
  ASSERT_OK(alices->Write("model/config.json", "hers"));
  EXPECT_EQ(*alices->Read("model/config.json", 100), "hers");
  const auto denied = FailsWith(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED");
  const auto mallorys = open(bucket["alice"], "file:mallory");
  EXPECT_THAT(mallorys->Read("model/config.json", 100), denied);
  EXPECT_THAT(mallorys->Stat("model/config.json"), denied);
  EXPECT_THAT(mallorys->List({}), denied);
  EXPECT_THAT(mallorys->Write("x", "mallory's"), denied);
  EXPECT_OK(open(bucket["mallory"], "file:mallory")->Write("x", "her own"));
  // Nor are the worker's own keys good for it, and they never stand in for keys that are missing.
  EXPECT_THAT(open(bucket["alice"], "")->Read("model/config.json", 100), denied);
  EXPECT_FALSE(
      OpenData(
          "s3://uniquanf/x",
          {{},
           std::make_shared<DataAccess>(
               std::vector<DataGrant>{{"s3://uniquanf", {DataPurpose::kModel}, "file:missing"}},
               std::vector<std::string>(), keys.path())})
          .ok());
}

}  // namespace

// What the killed child of AKilledWriter... does.
int WriteVictim(const char* uri) {
  const absl::StatusOr<ObjectLocation> location = OpenObjectLocation(uri);
  if (!location.ok()) return 2;
  return location->store->Write(location->key, std::string(3 * kDefaultMinPartBytes, 'v')).ok() ? 0
                                                                                                : 3;
}

}  // namespace uniquanf

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--write") return uniquanf::WriteVictim(argv[2]);
  ::testing::InitGoogleTest(&argc, argv);
  uniquanf::S3TestServer server;
  if (const int status = server.Start(); status != 0) {
    std::fprintf(stderr, "no S3 server (status %d); 77 means: skipped\n", status);
    return status;
  }
  uniquanf::server = &server;
  return RUN_ALL_TESTS();
}
