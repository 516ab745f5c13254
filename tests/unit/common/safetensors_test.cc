// The safetensors reader and writer: round trips, the format's bytes, and hostile headers.
#include "common/safetensors/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;
using DType = SafetensorsDType;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string FileBytes(uint64_t header_bytes, absl::string_view header, size_t data_bytes) {
  std::string file(8, '\0');
  std::memcpy(file.data(), &header_bytes, 8);
  absl::StrAppend(&file, header, std::string(data_bytes, '\0'));
  return file;
}

class SafetensorsTest : public ::testing::Test {
 protected:
  SafetensorsTest() : store_(OpenObjectStore(dir_.path()).value()) {}

  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> OpenBytes(const std::string& bytes) {
    EXPECT_OK(store_->Write("f", bytes));
    return SafetensorsFile::Open(store_, "f");
  }
  // A file of `header` and 16 bytes of data.
  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> OpenHeader(absl::string_view header) {
    return OpenBytes(FileBytes(header.size(), header, 16));
  }
  absl::Status WriteTensors(std::vector<SafetensorsWriter::Declaration> declarations,
                            const std::map<std::string, std::string>& data,
                            const std::map<std::string, std::string>& metadata = {}) {
    UQ_ASSIGN_OR_RETURN(auto out, store_->NewWriter("f", {}));
    UQ_ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::Create(out.get(), declarations, metadata));
    for (const auto& declaration : declarations) {
      const std::string& bytes = data.at(declaration.name);
      UQ_RETURN_IF_ERROR(writer->Append(declaration.name, bytes.data(), bytes.size()));
    }
    UQ_RETURN_IF_ERROR(writer->Finish());
    return out->Commit();
  }

  TempDir dir_;
  std::shared_ptr<ObjectStore> store_;
};

TEST_F(SafetensorsTest, WritesTheFormatsBytes) {
  ASSERT_OK(WriteTensors({{"b", DType::kI16, {2}}, {"a", DType::kU8, {}}},
                         {{"b", std::string("\1\0\2\0", 4)}, {"a", "z"}}, {{"k", "v"}}));
  const std::string header =
      R"({"__metadata__":{"k":"v"},"b":{"dtype":"I16","shape":[2],"data_offsets":[0,4]},)"
      R"("a":{"dtype":"U8","shape":[],"data_offsets":[4,5]}})";
  const size_t padded = (header.size() + 7) / 8 * 8;
  std::string expected(8, '\0');
  expected[0] = static_cast<char>(padded);
  absl::StrAppend(&expected, header, std::string(padded - header.size(), ' '),
                  absl::string_view("\1\0\2\0z", 5));
  EXPECT_EQ(*store_->Read("f", 10000), expected);
}

TEST_F(SafetensorsTest, ReadsBackEveryDType) {
  for (const DType dtype :
       {DType::kBool,       DType::kF4,     DType::kF6E2M3, DType::kF6E3M2, DType::kU8,
        DType::kI8,         DType::kF8E5M2, DType::kF8E4M3, DType::kF8E8M0, DType::kF8E4M3Fnuz,
        DType::kF8E5M2Fnuz, DType::kI16,    DType::kU16,    DType::kF16,    DType::kBF16,
        DType::kI32,        DType::kU32,    DType::kF32,    DType::kC64,    DType::kF64,
        DType::kI64,        DType::kU64}) {
    const std::string data(4 * SafetensorsDTypeBits(dtype) / 8, '\1');
    ASSERT_OK(WriteTensors({{"t", dtype, {1, 4}}}, {{"t", data}}));
    ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(store_, "f"));
    ASSERT_OK_AND_ASSIGN(const TensorInfo info, file->Find("t"));
    EXPECT_EQ(info.dtype, dtype);
    EXPECT_EQ(info.shape, (std::vector<int64_t>{1, 4}));
    EXPECT_EQ(info.num_elements(), 4);
    std::string read(info.size_bytes, '\0');
    ASSERT_OK(file->ReadBytes(info, read.data()));
    EXPECT_EQ(read, data) << SafetensorsDTypeName(dtype);
  }
}

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

TEST_F(SafetensorsTest, ConvertsToFloat) {
  ASSERT_OK(WriteTensors(
      {{"f32", DType::kF32, {2}}, {"f16", DType::kF16, {2}}, {"bf16", DType::kBF16, {2}}},
      {{"f32", Bytes<float>({1.5f, -3e38f})},
       {"f16", Bytes<uint16_t>({0x3E00, 0x0001})},
       {"bf16", Bytes<uint16_t>({0x3FC0, 0x8000})}}));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(store_, "f"));
  float out[2];
  ASSERT_OK(file->ReadFloat(*file->Find("f32"), out));
  EXPECT_EQ(out[1], -3e38f);
  ASSERT_OK(file->ReadFloat(*file->Find("f16"), out));
  EXPECT_EQ(out[0], 1.5f);
  EXPECT_EQ(out[1], 0x1p-24f);
  ASSERT_OK(file->ReadFloat(*file->Find("bf16"), out));
  EXPECT_EQ(out[0], 1.5f);
  EXPECT_TRUE(std::signbit(out[1]));
  EXPECT_THAT(file->ReadInt64(*file->Find("f32"), nullptr), FailsWith(kInvalid, "TENSOR_DTYPE"));
}

TEST_F(SafetensorsTest, ConvertsLongTensorsInChunks) {
  std::vector<int32_t> values(700'001);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int32_t>(i) - 5;
  ASSERT_OK(WriteTensors({{"t", DType::kI32, {700'001}}}, {{"t", Bytes(values)}}));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(store_, "f"));
  std::vector<int64_t> out(values.size());
  ASSERT_OK(file->ReadInt64(*file->Find("t"), out.data()));
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(out[i], static_cast<int64_t>(i) - 5);
}

TEST_F(SafetensorsTest, ConvertsIntegersAndRefusesThoseThatDoNotFit) {
  ASSERT_OK(
      WriteTensors({{"u64", DType::kU64, {2}}, {"i8", DType::kI8, {1}}, {"u32", DType::kU32, {1}}},
                   {{"u64", Bytes<uint64_t>({7, 1ull << 63})},
                    {"i8", Bytes<int8_t>({-128})},
                    {"u32", Bytes<uint32_t>({0xFFFFFFFFu})}}));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(store_, "f"));
  int64_t out[2];
  ASSERT_OK(file->ReadInt64(*file->Find("i8"), out));
  EXPECT_EQ(out[0], -128);
  ASSERT_OK(file->ReadInt64(*file->Find("u32"), out));
  EXPECT_EQ(out[0], 0xFFFFFFFFll);
  EXPECT_THAT(file->ReadInt64(*file->Find("u64"), out),
              FailsWith(kInvalid, "TENSOR_DTYPE", HasSubstr("element 1")));
  EXPECT_THAT(file->ReadFloat(*file->Find("i8"), nullptr), FailsWith(kInvalid, "TENSOR_DTYPE"));
  EXPECT_THAT(file->Find("none"), FailsWith(kInvalid, "TENSOR_NOT_FOUND", HasSubstr("none")));
}

TEST_F(SafetensorsTest, EmptyFilesAndEmptyTensorsWork) {
  ASSERT_OK(WriteTensors({}, {}));
  ASSERT_OK_AND_ASSIGN(const auto none, SafetensorsFile::Open(store_, "f"));
  EXPECT_TRUE(none->tensors().empty());
  ASSERT_OK(
      WriteTensors({{"e", DType::kF32, {0, 4}}, {"x", DType::kU8, {1}}, {"g", DType::kF32, {0}}},
                   {{"e", ""}, {"x", "a"}, {"g", ""}}));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(store_, "f"));
  EXPECT_OK(file->ReadFloat(*file->Find("e"), nullptr));
  EXPECT_EQ(file->tensors().size(), 3u);
}

TEST_F(SafetensorsTest, LongHeadersAreReadWhole) {
  std::vector<SafetensorsWriter::Declaration> declarations;
  std::map<std::string, std::string> data;
  for (int i = 0; i < 6000; ++i) {
    declarations.push_back({absl::StrCat("a/rather/long/name/", i), DType::kU8, {1}});
    data[declarations.back().name] = std::string(1, static_cast<char>(i));
  }
  ASSERT_OK(WriteTensors(declarations, data));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(store_, "f"));
  ASSERT_EQ(file->tensors().size(), 6000u);
  char byte;
  ASSERT_OK(file->ReadBytes(*file->Find("a/rather/long/name/4321"), &byte));
  EXPECT_EQ(byte, static_cast<char>(4321));
}

TEST_F(SafetensorsTest, WriterRefusesWhatWasNotDeclared) {
  ASSERT_OK_AND_ASSIGN(auto out, store_->NewWriter("f", {}));
  ASSERT_OK_AND_ASSIGN(
      auto writer,
      SafetensorsWriter::Create(out.get(), {{"a", DType::kU8, {2}}, {"b", DType::kU8, {1}}}, {}));
  EXPECT_THAT(writer->Append("b", "x", 1), FailsWith(kInvalid, "SAFETENSORS_BAD_ORDER"));
  EXPECT_THAT(writer->Append("a", "xyz", 3), FailsWith(kInvalid, "TENSOR_SHAPE"));
  EXPECT_OK(writer->Append("a", "x", 1));
  EXPECT_THAT(writer->Finish(), FailsWith(kInvalid, "TENSOR_SHAPE", HasSubstr("\"a\"")));
  EXPECT_OK(writer->Append("a", "y", 1));
  EXPECT_OK(writer->Append("b", "z", 1));
  EXPECT_OK(writer->Finish());
  EXPECT_THAT(writer->Append("b", "z", 1), FailsWith(kInvalid, "SAFETENSORS_BAD_ORDER"));
}

TEST_F(SafetensorsTest, WriterRefusesBadDeclarations) {
  const auto create = [&](std::vector<SafetensorsWriter::Declaration> declarations) {
    auto out = store_->NewWriter("f", {}).value();
    return SafetensorsWriter::Create(out.get(), std::move(declarations), {}).status();
  };
  const auto bad = FailsWith(kInvalid, "SAFETENSORS_BAD_HEADER");
  EXPECT_THAT(create({{"", DType::kU8, {1}}}), bad);
  EXPECT_THAT(create({{"__metadata__", DType::kU8, {1}}}), bad);
  EXPECT_THAT(create({{"a", DType::kU8, {1}}, {"a", DType::kU8, {1}}}), bad);
  EXPECT_THAT(create({{"\xff", DType::kU8, {1}}}), bad);
  EXPECT_THAT(create({{"a", DType::kU8, {-1}}}), FailsWith(kInvalid, "TENSOR_SHAPE"));
  EXPECT_THAT(create({{"a", DType::kU8, {int64_t{1} << 40, int64_t{1} << 40}}}),
              FailsWith(kInvalid, "TENSOR_SHAPE"));
}

TEST_F(SafetensorsTest, SortsForAlignment) {
  std::vector<SafetensorsWriter::Declaration> tensors = {{"z", DType::kF16, {3}},
                                                         {"b", DType::kU8, {1}},
                                                         {"m", DType::kI32, {1}},
                                                         {"a", DType::kF16, {1}}};
  SafetensorsWriter::SortForAlignment(&tensors);
  EXPECT_EQ(tensors[0].name, "m");
  EXPECT_EQ(tensors[1].name, "a");
  EXPECT_EQ(tensors[2].name, "z");
  EXPECT_EQ(tensors[3].name, "b");
}

TEST_F(SafetensorsTest, TruncatedFilesAreRefused) {
  EXPECT_THAT(SafetensorsFile::Open(store_, "missing"),
              FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
  EXPECT_THAT(OpenBytes(""), FailsWith(kInvalid, "SAFETENSORS_TRUNCATED"));
  EXPECT_THAT(OpenBytes("1234567"), FailsWith(kInvalid, "SAFETENSORS_TRUNCATED"));
  EXPECT_THAT(OpenBytes(FileBytes(100, "{}", 0)), FailsWith(kInvalid, "SAFETENSORS_TRUNCATED"));
  EXPECT_THAT(OpenBytes(FileBytes(0, "", 0)), FailsWith(kInvalid, "SAFETENSORS_BAD_HEADER"));
  const std::string cut = R"({"a":{"dtype":"U8","shape":[17],"data_offsets":[0,17]}})";
  EXPECT_THAT(OpenHeader(cut), FailsWith(kInvalid, "SAFETENSORS_BAD_OFFSETS", HasSubstr("\"a\"")));
}

TEST_F(SafetensorsTest, HugeHeaderLengthsAreRefusedWithoutReading) {
  for (const uint64_t length :
       {uint64_t{(100 << 20) + 1}, uint64_t{1} << 63, std::numeric_limits<uint64_t>::max()}) {
    EXPECT_THAT(OpenBytes(FileBytes(length, "{}", 0)),
                FailsWith(kInvalid, "SAFETENSORS_HEADER_TOO_LARGE"));
  }
}

TEST_F(SafetensorsTest, LyingOffsetsAreRefused) {
  for (
      const char* tensors : {
          R"("a":{"dtype":"U8","shape":[4],"data_offsets":[14,18]})",  // beyond the file
          R"("a":{"dtype":"U8","shape":[4],"data_offsets":[18446744073709551612,18446744073709551616]})",
          R"("a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]})",  // backwards
          R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,5]})",  // not the shape's size
          R"("a":{"dtype":"F32","shape":[4],"data_offsets":[0,4]})",
          R"("a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]})",  // overflow
          R"("a":{"dtype":"U8","shape":[9223372036854775807,2],"data_offsets":[0,16]})",
          R"("a":{"dtype":"U8","shape":[9223372036854775807,9223372036854775807,0],"data_offsets":[0,0]})",
          R"("a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[7,15]})",
          R"("a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]})",
      }) {
    const auto status = OpenHeader(absl::StrCat("{", tensors, "}")).status();
    EXPECT_EQ(status.code(), kInvalid) << tensors;
    EXPECT_THAT(ErrorReason(status),
                ::testing::AnyOf("SAFETENSORS_BAD_OFFSETS", "SAFETENSORS_BAD_HEADER"))
        << tensors << " " << status;
  }
}

TEST_F(SafetensorsTest, HolesAreAllowed) {
  ASSERT_OK_AND_ASSIGN(
      const auto file,
      OpenHeader(
          R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[10,12]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})"));
  EXPECT_EQ(file->tensors().size(), 2u);
}

TEST_F(SafetensorsTest, MalformedHeadersAreRefused) {
  const std::string rest = R"("dtype":"U8","shape":[1],"data_offsets":[0,1])";
  for (const std::string& header : {
           std::string("[]"),
           std::string("x{}"),
           std::string(" {}"),
           std::string("{"),
           std::string("{}{}"),
           std::string("null"),
           std::string(R"({"a":1})"),
           std::string(R"({"a":[]})"),
           std::string(R"({"a":{}})"),
           std::string(R"({"":{)") + rest + "}}",
           std::string(R"({"a":{"dtype":"U8","shape":[1]}})"),
           std::string(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})"),
           std::string(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})"),
           std::string(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})"),
           std::string(R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})"),
           std::string(R"({"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}})"),
           std::string(R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})"),
           std::string(R"({"a":{"dtype":"U8","shape":{},"data_offsets":[0,1]}})"),
           std::string(R"({"a":{"dtype":1,"shape":[1],"data_offsets":[0,1]}})"),
           std::string(R"({"a":{"dtype":["U8"],"shape":[1],"data_offsets":[0,1]}})"),
           std::string(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})"),
           std::string(R"({"a":{"extra":1,)") + rest + "}}",
           std::string(R"({"a":{)") + rest + R"(},"a":{)" + rest + "}}",
           std::string(R"({"__metadata__":{},"__metadata__":{}})"),
           std::string(R"({"__metadata__":{"k":1}})"),
           std::string(R"({"__metadata__":{"k":{}}})"),
           std::string(R"({"__metadata__":{"k":"a","k":"b"}})"),
           std::string(R"({"__metadata__":[]})"),
           std::string("{\"a\xff\":{") + rest + "}}",
           std::string("{\"__metadata__\":{\"k\":\"\xc3\"}}"),
           absl::StrCat(R"({"a":{"dtype":"U8","data_offsets":[0,1],"shape":[)",
                        std::string(40000, '1'), "]}}"),
           absl::StrCat(R"({"a":{"dtype":"U8","data_offsets":[0,1],"shape":[1)",
                        [] {
                          std::string ones;
                          for (int i = 0; i < 40; ++i) ones += ",1";
                          return ones;
                        }(),
                        "]}}"),
       }) {
    EXPECT_THAT(OpenHeader(header), FailsWith(kInvalid, "SAFETENSORS_BAD_HEADER"))
        << header.substr(0, 200);
  }
  EXPECT_THAT(OpenHeader(R"({"a":{"dtype":"F9_E4M4","shape":[1],"data_offsets":[0,1]}})"),
              FailsWith(kInvalid, "TENSOR_DTYPE", HasSubstr("F9_E4M4")));
  // Three elements of four bits fill no whole bytes.
  EXPECT_THAT(OpenHeader(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})"),
              FailsWith(kInvalid, "SAFETENSORS_BAD_OFFSETS", HasSubstr("no whole number")));
}

TEST_F(SafetensorsTest, DeepHeadersOfTheLargestSizeEndQuickly) {
  for (const char* start :
       {"{\"a\":", "{\"__metadata__\":", "{\"a\":{\"shape\":", "{\"a\":{\"x\":"}) {
    std::string header(SafetensorsFile::kMaxHeaderBytes, '[');
    header.replace(0, std::strlen(start), start);
    EXPECT_THAT(OpenHeader(header), FailsWith(kInvalid, "SAFETENSORS_BAD_HEADER"));
  }
}

TEST_F(SafetensorsTest, FileThatShrinksAfterOpenIsAnErrorNotGarbage) {
  ASSERT_OK(WriteTensors({{"t", DType::kU8, {4}}}, {{"t", "abcd"}}));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(store_, "f"));
  ASSERT_OK(store_->Write("f", "short"));
  char out[4];
  EXPECT_THAT(file->ReadBytes(*file->Find("t"), out),
              FailsWith(absl::StatusCode::kOutOfRange, "OBJECT_TOO_SHORT"));
}

}  // namespace
}  // namespace uniquanf
