// Parses files of SQL as Trino does, and prints a line for each statement: what it is, and the name that it makes.

import io.trino.sql.parser.ParsingException;
import io.trino.sql.parser.ParsingOptions;
import io.trino.sql.parser.SqlParser;
import io.trino.sql.parser.StatementSplitter;
import io.trino.sql.tree.CreateView;
import io.trino.sql.tree.Statement;
import java.nio.file.Files;
import java.nio.file.Path;

public final class Parse {
    public static void main(String[] files) throws Exception {
        for (String file : files) {
            StatementSplitter splitter = new StatementSplitter(Files.readString(Path.of(file)));
            if (!splitter.getPartialStatement().isEmpty()) {
                fail(file, "something follows the last semicolon", splitter.getPartialStatement());
            }
            for (StatementSplitter.Statement part : splitter.getCompleteStatements()) {
                try {
                    Statement statement = new SqlParser().createStatement(part.statement(), new ParsingOptions());
                    String made = statement instanceof CreateView view ? view.getName().toString() : "-";
                    System.out.println(statement.getClass().getSimpleName() + " " + made);
                } catch (ParsingException error) {
                    fail(file, error.getMessage(), part.statement());
                }
            }
        }
    }

    private static void fail(String file, String why, String statement) {
        System.err.println(file + ": " + why + "\n" + statement);
        System.exit(1);
    }
}
