#include <sqlite3.h>

#include <fstream>

#include "tests/support/temp_dir.h"
#include "tests/unit/server/job_store_conformance.h"
#include "tests/unit/server/state_0_1_0.h"

namespace uniquanf::server {
namespace {

struct SqliteFactory {
  TempDir dir;
  std::unique_ptr<JobStore> New() { return NewSqliteStore(dir.File("state.sqlite")); }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Sqlite, JobStoreConformance, SqliteFactory);

class SqliteStoreTest : public ::testing::Test {
 protected:
  void Execute(const char* sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
    sqlite3_close(db);
  }
  TempDir dir_;
  const std::string path_ = dir_.File("state.sqlite");
};

TEST_F(SqliteStoreTest, ASecondServerIsKeptOut) {
  auto first = NewSqliteStore(path_), second = NewSqliteStore(path_);
  ASSERT_THAT(first->Open(), IsOk());
  EXPECT_THAT(second->Open(), FailsWith(absl::StatusCode::kFailedPrecondition, "STATE_IN_USE"));
  first.reset();
  EXPECT_THAT(second->Open(), IsOk());
}

TEST_F(SqliteStoreTest, NewerSchemaIsRefused) {
  ASSERT_THAT(NewSqliteStore(path_)->Open(), IsOk());
  Execute("PRAGMA user_version=99");
  EXPECT_THAT(NewSqliteStore(path_)->Open(),
              FailsWith(absl::StatusCode::kFailedPrecondition, "STATE_SCHEMA"));
}

TEST_F(SqliteStoreTest, AnotherProgramsDatabaseIsRefusedAndLeftAlone) {
  Execute("CREATE TABLE precious (x)");
  EXPECT_THAT(NewSqliteStore(path_)->Open(),
              FailsWith(absl::StatusCode::kFailedPrecondition, "STATE_SCHEMA"));
}

TEST_F(SqliteStoreTest, DamageIsReportedClearly) {
  std::ofstream(path_) << std::string(8192, 'x');
  EXPECT_THAT(NewSqliteStore(path_)->Open(),
              FailsWith(absl::StatusCode::kDataLoss, "STATE_CORRUPT", ::testing::HasSubstr(path_)));
}

TEST_F(SqliteStoreTest, ADamagedRecordIsReportedClearly) {
  {
    auto store = NewSqliteStore(path_);
    WriteBatch batch;
    batch.epoch = *store->Open();
    batch.jobs = {SampleJob(1, "a")};
    ASSERT_THAT(store->Commit(batch), IsOk());
  }
  Execute("UPDATE jobs SET record = x'FFFFFF'");
  auto store = NewSqliteStore(path_);
  ASSERT_THAT(store->Open(), IsOk());
  EXPECT_THAT(store->Load(), FailsWith(absl::StatusCode::kDataLoss, "STATE_CORRUPT"));
}

TEST_F(SqliteStoreTest, AStateOf010IsReadAndWrittenAnew) {
  WriteFile(path_, ReadFile(kState010Sqlite));
  ExpectMigrates([this] { return NewSqliteStore(path_); });
}

TEST_F(SqliteStoreTest, DamageInARecordOf010IsFound) {
  WriteFile(path_, ReadFile(kState010Sqlite));
  Execute("UPDATE jobs SET record = CAST(record || x'3063' AS BLOB) WHERE seq = 3");  // state: 99
  auto store = NewSqliteStore(path_);
  ASSERT_THAT(store->Open(), IsOk());
  EXPECT_THAT(store->Load(), FailsWith(absl::StatusCode::kDataLoss, "STATE_CORRUPT"));
}

TEST_F(SqliteStoreTest, MissingDirectoryIsAClearError) {
  EXPECT_THAT(NewSqliteStore(dir_.File("none/state.sqlite"))->Open(),
              FailsWith(absl::StatusCode::kFailedPrecondition, "STATE_UNWRITABLE"));
}

TEST(NewJobStoreTest, UnknownSchemeIsRefused) {
  EXPECT_THAT(NewJobStore("mysql://user:secret@host/db"),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_STATE_URI",
                        ::testing::Not(::testing::HasSubstr("secret"))));
}

}  // namespace
}  // namespace uniquanf::server
